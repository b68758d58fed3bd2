"""Study: one question, answered on a person's own data by many small runs."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from torch.distributed import is_torchelastic_launched
from tyro.conf import Positional

from vitrail.errors import Interrupted, SettingError, UserError
from vitrail.recipes import run
from vitrail.recipes.resume import as_json, as_started
from vitrail.recipes.settings import LeftOpen, check_numbers
from vitrail.train.precision import Precision, choose_device, choose_precision


@dataclass(frozen=True)
class Study:
    """Train many small networks that differ in one thing, and draw what it does: how much data, or how much is masked.

    Examples:
      vitrail study data-scaling photos/
      vitrail study data-scaling photos/ --seeds 0 1 2 --shares 0.1 0.3 1 --epochs 20
      vitrail study masking photos/
      vitrail study --resume studies/photos-data-scaling
    """

    kind: Positional[Literal["data-scaling", "masking"]] = "data-scaling"
    """data-scaling: a ViT and a ResNet that cost the same, on growing shares of the data; masking: MAE, hiding more
    and more of each image."""
    data: Positional[LeftOpen[str]] = None
    """A folder of class folders, a table of paths and labels, or another kind of data that `vitrail info` knows."""
    out: LeftOpen[Path] = None
    """The study's folder, which holds a folder of each run; left out: studies/DATA-KIND."""
    resume: LeftOpen[Path] = None
    """Go on with this study: finished runs are not repeated, the one that was stopped goes on where it was."""
    overwrite: bool = False
    """Replace the study that is in --out, and all its runs."""
    shares: tuple[float, ...] = (0.0625, 0.125, 0.25, 0.5, 1.0)
    """Shares of the training images, for data-scaling."""
    seeds: tuple[int, ...] = (0,)
    """Every run is repeated with each of these seeds: other images of a share, other weights to begin with."""
    size: Literal["small", "large"] = "small"
    """Of the networks of data-scaling: small, 21 million operations an image of 64 pixels; large, those of a
    ResNet-50."""
    image_size: LeftOpen[int] = None
    """Side of the images in pixels, as the networks see them; left out: chosen for the data and the size."""
    epochs: LeftOpen[int] = None
    """How many times to go through as many images as there are; left out: chosen for the data."""
    batch_size: LeftOpen[int] = None
    """Images in a step; left out: chosen for the data."""
    learning_rate: float = 1e-3
    """Peak learning rate of all runs."""
    format: LeftOpen[str] = None
    """How DATA is stored, where looking at it does not tell: folder, csv, parquet …"""
    image_column: LeftOpen[str] = None
    """The column of a table that holds the images' paths; left out: image, path, file …"""
    label_column: LeftOpen[str] = None
    """The column of a table that holds the labels; left out: label, class, category …"""
    workers: LeftOpen[int] = None
    """Processes that read images; changes the speed only. Left out: chosen for the machine."""
    device: str = "auto"
    """cpu, cuda, mps, or auto for the best there is."""
    precision: Precision = "auto"
    """Format of matrix products; auto is bfloat16 where the machine has it."""
    json: bool = False
    """Print the figures as one JSON document."""


def study(settings: Study) -> dict[str, Any]:
    """Carry a study out, or go on with one; returns its figures, which `study.json` in its folder has, too."""
    check(settings)
    if settings.resume is not None:
        return carried_out(replace(as_started(settings, "study", with_full_path), out=Path(settings.resume)))
    settings = begun(settings)
    assert settings.out is not None
    with removed_before_a_run(settings.out):
        return carried_out(settings)


def carried_out(settings: Study) -> dict[str, Any]:
    """All runs of a study whose folder is there, as far as they have not finished, and what comes of them."""
    try:
        if settings.kind == "masking":
            from vitrail.recipes.study_masking import masking

            return masking(settings)
        from vitrail.recipes.study_scaling import data_scaling

        return data_scaling(settings)
    except Interrupted as stopped:
        remedy = f"go on with: vitrail study --resume {settings.out}"
        raise Interrupted(f"stopped; {remedy}", stopped.exit_status - 128) from stopped


def check(settings: Study) -> None:
    """Raises :class:`SettingError` for settings that make no sense, whatever the data."""
    check_numbers(settings)
    if settings.data is None and settings.resume is None:
        raise SettingError("no data was given: `vitrail study KIND DATA`, or `vitrail study --resume STUDY`.")
    if is_torchelastic_launched():
        raise SettingError("a study is many small runs, one after the other; start it without torchrun.")
    if not settings.seeds or min(settings.seeds) < 0 or len(set(settings.seeds)) < len(settings.seeds):
        raise SettingError("--seeds must be different numbers from 0 upwards, at least one.")
    shares = settings.shares
    if not shares or not all(0 < share <= 1 for share in shares) or len(set(shares)) < len(shares):
        raise SettingError("--shares must be different numbers above 0 and at most 1, at least one.")


def begun(settings: Study) -> Study:
    """The settings with the study's folder, which is made, and with the data by their full path."""
    folder = settings.out or Path("studies", run.default_folder(str(settings.data), settings.kind).name)
    run.refuse_existing(folder, settings.overwrite)
    settings = replace(with_full_path(settings), out=folder)
    device = choose_device(settings.device)
    record = {
        "recipe": "study",
        "settings": as_json(settings),
        "choice": {},
        "device": str(device),
        "precision": str(choose_precision(device, settings.precision)).removeprefix("torch."),
        "data": {},
    }
    run.start(folder, record, overwrite=settings.overwrite)
    return settings


def with_full_path(settings: Study) -> Study:
    """``settings`` with the data by their full path, so that the study finds them from any folder."""
    return replace(settings, data=None if settings.data is None else run.absolute(settings.data))


@contextmanager
def removed_before_a_run(folder: Path) -> Iterator[None]:
    """Remove a new study that a person's mistake ends before its first run."""
    try:
        yield
    except UserError:
        if all(path.name == run.RECORD for path in folder.iterdir()):
            shutil.rmtree(folder, ignore_errors=True)
        raise
