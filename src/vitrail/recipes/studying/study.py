"""Study: one question, answered on a person's own data by many small runs."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch.distributed import is_torchelastic_launched

from vitrail.errors import Interrupted, SettingError, UserError
from vitrail.recipes import run
from vitrail.recipes.resume import as_json, as_started
from vitrail.recipes.settings import check_numbers
from vitrail.recipes.studying.settings import Study
from vitrail.train.precision import choose_device, choose_precision


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
            from vitrail.recipes.studying.masking import masking

            return masking(settings)
        from vitrail.recipes.studying.scaling import data_scaling

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
