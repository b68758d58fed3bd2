"""Cache: what `--cache` keeps on this machine, how large it is, and how to be rid of it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from tyro.conf import Positional

from vitrail.console import say
from vitrail.data.cache import ENDING, file_of, folder, in_words
from vitrail.data.store import contents
from vitrail.errors import DataError
from vitrail.recipes.settings import LeftOpen


@dataclass(frozen=True)
class Cache:
    """Show the decoded images that --cache keeps, or remove them; they are only ever made to save time.

    Examples:
      vitrail cache
      vitrail cache --clear
      vitrail cache photos/ --clear
    """

    data: Positional[LeftOpen[str]] = None
    """Of these data alone; left out: of all."""
    clear: bool = False
    """Remove the files."""
    json: bool = False
    """Print what there is, or was, as one JSON document."""


def cache(settings: Cache) -> list[dict[str, Any]]:
    """What is kept, the largest file first; with ``clear`` it is removed.

    Raises :class:`DataError` for data of which nothing is kept.
    """
    found = sorted(map(described, files(settings.data)), key=lambda file: -file["bytes"])
    if settings.clear:
        for file in found:
            remove(Path(file["file"]))
    if not settings.json:
        show(found, cleared=settings.clear)
    return found


def files(data: str | None) -> list[Path]:
    """The stores there are, or that of these data."""
    if data is None:
        return sorted(folder().glob(f"*{ENDING}"))
    path = file_of(str(Path(data).expanduser().resolve()))
    if not path.is_file():
        raise DataError(f"nothing is kept of {data}; `vitrail cache` shows what is.")
    return [path]


def described(path: Path) -> dict[str, Any]:
    """What is in a store, ready for JSON."""
    data, images = contents(path)
    status = path.stat()
    used = datetime.fromtimestamp(status.st_mtime).isoformat(timespec="minutes")
    return {"data": data, "images": images, "bytes": status.st_size, "used": used, "file": str(path)}


def remove(path: Path) -> None:
    """Those who use it go on with what they have open."""
    path.unlink(missing_ok=True)
    path.with_suffix(".lock").unlink(missing_ok=True)


def show(found: list[dict[str, Any]], cleared: bool) -> None:
    """A table on standard output, and the sum."""
    from rich.console import Console
    from rich.table import Table

    table = Table("data", "images", "size", "last used")
    for file in found:
        table.add_row(file["data"], f"{file['images']:,}", in_words(file["bytes"]), file["used"])
    if found:
        Console().print(table)
    total = in_words(sum(file["bytes"] for file in found))
    if cleared:
        say(f"removed {len(found)} from {folder()}: {total}")
    else:
        say(f"{total} in {folder()}" + ("; remove it with `vitrail cache --clear`" if found else ""))
