"""Images as a person gives them to a command: files, folders, patterns, or standard input."""

from __future__ import annotations

import glob
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from vitrail.data.read import is_image
from vitrail.errors import DataError


def find_images(words: Sequence[str]) -> list[Path | tuple[str, bytes]]:
    """The images that words of the command line stand for. Raises :class:`DataError` for a word without any."""
    found: list[Path | tuple[str, bytes]] = []
    for word in words:
        here = list(_images_of(word))
        if not here:
            where = "on standard input" if word == "-" else f"at '{word}'"
            raise DataError(f"there is no image {where}; give files, folders or patterns such as 'photos/*.jpg'.")
        found += here
    if not found:
        raise DataError("no image was given; give files, folders or patterns such as 'photos/*.jpg'.")
    return found


def _images_of(word: str) -> Iterator[Path | tuple[str, bytes]]:
    path = Path(word)
    if word == "-":
        yield from _standard_input(sys.stdin.buffer.read())
    elif path.is_dir():
        yield from (file for file in sorted(path.rglob("*")) if is_image(file.name) and file.is_file())
    elif path.exists() or not glob.has_magic(word):
        yield path
    else:
        yield from (Path(match) for match in sorted(glob.glob(word, recursive=True)))  # noqa: PTH207 - may be absolute


def _standard_input(data: bytes) -> Iterator[Path | tuple[str, bytes]]:
    """A list of paths, one a line, or the bytes of one image, of which no format is UTF-8 text without a zero."""
    try:
        lines = data.decode().splitlines()
    except UnicodeDecodeError:
        lines = []
    if lines and b"\0" not in data:
        yield from (Path(line) for line in lines if line.strip())
    elif data:
        yield "-", data
