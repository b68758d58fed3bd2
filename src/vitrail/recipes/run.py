"""A run's folder: `run.json` tells how it came about; model, metrics, plots and the state to resume lie beside it."""

from __future__ import annotations

import hashlib
import json
import platform
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

import vitrail
from vitrail import atomic
from vitrail.data import jpeg
from vitrail.data.source import Dataset
from vitrail.errors import Interrupted, RunError, UserError
from vitrail.train import distributed
from vitrail.train.state import STATE

FORMAT = 1  # of run.json; a greater number than this is a newer version's
RECORD = "run.json"
WORDS = ("digits", "shapes")  # data that are asked for by a word; all others by a path


def start(folder: Path, record: dict[str, Any], *, overwrite: bool) -> None:
    """Make the folder with its `run.json`.

    Raises :class:`RunError` if a run is there and is not to be overwritten, or the folder cannot be made.
    """
    refuse_existing(folder, overwrite)
    distributed.barrier()  # every process has looked before the first one makes the folder
    if distributed.rank() == 0:
        try:
            if folder.exists():
                shutil.rmtree(folder)
            with removed_after_mistake(folder):
                write(folder, {"format": FORMAT, "command": sys.argv, **record, "versions": versions()})
        except OSError as error:
            reason = (error.strerror or "").lower()
            raise RunError(f"the run cannot be written to {folder}: {reason}; choose another --out.") from error
    distributed.barrier()


@contextmanager
def removed_after_mistake(folder: Path) -> Iterator[None]:
    """Remove a new run that a person's mistake ends before there is a state to go on from."""
    try:
        yield
    except UserError:
        if distributed.rank() == 0 and not (folder / STATE).is_file():
            shutil.rmtree(folder, ignore_errors=True)
        raise


def refuse_existing(folder: Path, overwrite: bool) -> None:
    """Raises :class:`RunError` if the folder holds something, unless it is a run that may be overwritten."""
    if not folder.exists() or (folder.is_dir() and all(is_leftover(path) for path in folder.iterdir())):
        return
    if not (folder / RECORD).is_file():
        raise RunError(f"{folder} exists and is not a run of Vitrail; choose another --out.")
    if not overwrite:
        raise RunError(f"{folder} already holds a run; go on with --resume {folder}, replace it with --overwrite, or "
                       "choose another --out.")  # fmt: skip


def is_leftover(path: Path) -> bool:
    """Whether this is what a process leaves that is killed while it writes the first `run.json`."""
    return path.name.startswith(f".{RECORD}.")


def write(folder: Path, record: dict[str, Any]) -> None:
    """Replace `run.json`."""
    atomic.write_text(folder / RECORD, json.dumps(record, indent=2, ensure_ascii=False) + "\n")


def read(folder: Path) -> dict[str, Any]:
    """`run.json` of a run. Raises :class:`RunError` if the folder is missing, incomplete, or of a newer version."""
    if not folder.is_dir():
        raise RunError(f"there is no run folder {folder}; give the --out folder of a training run.")
    if not (folder / RECORD).is_file():
        raise RunError(f"{folder} is not a run of Vitrail: it has no {RECORD}; start one with `vitrail train DATA`.")
    try:
        record: dict[str, Any] = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        version = int(record["format"])
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(f"{folder / RECORD} is damaged ({error}); start again with --overwrite.") from error
    if version > FORMAT:
        raise RunError(f"{folder} was written by a newer Vitrail; update with `pip install --upgrade vitrail`.")
    if missing := [key for key in ("settings", "choice", "data") if not isinstance(record.get(key), dict)]:
        raise RunError(f"{folder / RECORD} is damaged: it has no {missing[0]}; start again with --overwrite.")
    return record


def absolute(data: str) -> str:
    """A path in full, so that the run finds its data from any folder; a word such as ``digits`` as it is."""
    return data if data.partition(":")[0] in WORDS else str(Path(data).expanduser().resolve())


def refuse_changed(dataset: Dataset, record: dict[str, Any], folder: Path, remedy: str) -> None:
    """Raises :class:`RunError` if the data are not those that the run in ``folder`` was started with."""
    if fingerprint(dataset) != record["data"]["fingerprint"]:
        raise RunError(
            f"the images or labels of {dataset.name} are no longer those that {folder} was started with; {remedy}."
        )


def note_or_refuse(dataset: Dataset, folder: Path, remedy: str) -> None:
    """Note the data in the record in ``folder``; where some are noted already, refuse others as `refuse_changed`."""
    record = read(folder)
    if "fingerprint" in record["data"]:
        refuse_changed(dataset, record, folder, remedy)
    else:
        record["data"]["fingerprint"] = fingerprint(dataset)
        write(folder, record)


@contextmanager
def resumable(command: str, folder: Path) -> Iterator[None]:
    """A context in which who interrupts a run is told how to go on with it."""
    try:
        yield
    except Interrupted as stopped:
        remedy = f"Go on with: vitrail {command} --resume {folder}"
        raise Interrupted(f"{stopped} {remedy}", stopped.exit_status - 128) from stopped


def refuse_other(found: str, record: dict[str, Any], folder: Path) -> None:
    """Raises :class:`RunError` if the data's fingerprint is not that of the run in ``folder``."""
    if found != record["data"]["fingerprint"]:
        raise RunError(
            f"the data are no longer those that {folder} was started with; restore them, or start a new run."
        )


def default_folder(data: str, model: str) -> Path:
    """``runs/DATA-MODEL``, in letters that every file system takes."""
    name = re.sub(r"[^\w.-]+", "-", Path(data).stem) or "data"
    return Path("runs", f"{name}-{model}")


def fingerprint(dataset: Dataset) -> str:
    """A hash of every image's name and label in every split: another value means other data."""
    digest = hashlib.blake2b(repr(dataset.classes).encode(), digest_size=16)
    for split, source in dataset.splits.items():
        digest.update(f"\n{split} {len(source)}".encode())
        for index in range(len(source)):
            digest.update(f"\n{source.name(index)} {source.label(index)}".encode())
    return digest.hexdigest()


def versions() -> dict[str, str]:
    """What computed: interpreter, libraries, machine."""
    return {
        "vitrail": vitrail.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "jpeg": jpeg.decoder(),
        "machine": f"{platform.system()} {platform.machine()}",
    }
