"""A run goes on with the settings that it was started with: they are in its folder, none need be given again."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from vitrail.console import say
from vitrail.data import jpeg
from vitrail.errors import RunError, SettingError
from vitrail.recipes import run

S = TypeVar("S", bound=Any)

FREE = ("resume", "workers", "cache", "save_seconds", "json", "device")  # what may be another when a run goes on


def as_started(settings: S, command: str, with_full_paths: Callable[[S], S]) -> S:
    """The settings of the run that is to go on, which ``command`` started.

    Raises :class:`SettingError` for one that was given and is another than the run was started with; those that change
    no result, and the device, may be.
    """
    given: Any = settings
    folder = Path(given.resume)
    record = run.read(folder)
    if (started_by := record.get("recipe", "train")) != command:
        raise RunError(f"{folder} was started by `vitrail {started_by}`; go on with `vitrail {started_by} --resume`.")
    if (decoder := record.get("versions", {}).get("jpeg", jpeg.decoder())) != jpeg.decoder():
        say(
            f"JPEGs were decoded by {decoder} and now are by {jpeg.decoder()}: the pixels are the same if both were "
            "built with the same libjpeg-turbo"
        )
    try:
        stated = {
            name: tuple(value) if isinstance(value, list) else value for name, value in record["settings"].items()
        }
        before = replace(given, data=stated.pop("data"), **stated)
        precision = record["precision"]
    except (KeyError, TypeError) as error:
        raise RunError(f"{folder / run.RECORD} is damaged ({error}); start again with --overwrite.") from error
    out = None if given.out is not None and Path(given.out) == folder else given.out
    named: Any = replace(with_full_paths(given), out=out)
    now, then, usual = as_json(named), as_json(before), as_json(type(given)())
    if others := [name for name in now if name not in FREE and now[name] not in (usual[name], then[name])]:
        flags = ", ".join("DATA" if name == "data" else f"--{name.replace('_', '-')}" for name in others)
        raise SettingError(
            f"--resume goes on with {folder} as it was started: leave out {flags}, or start a new run, perhaps with "
            f"--weights {folder}."
        )
    free = {name: getattr(given, name) for name in FREE if hasattr(given, name)}
    device = given.device if given.device != "auto" else before.device
    if hasattr(given, "cache") and given.cache == "none":
        free["cache"] = before.cache
    again: Any = replace(before, **free | {"device": device, "precision": precision})
    return again


def as_json(settings: Any) -> dict[str, Any]:
    """A dataclass as JSON has it."""
    values: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(settings), default=str))
    return values
