"""The images of a source that can be read, one after the other."""

from __future__ import annotations

from collections.abc import Iterator

from vitrail.console import progress, say
from vitrail.data.sample import Sample
from vitrail.data.source import Source
from vitrail.errors import DataError, UnreadableImage


def readable(source: Source, what: str = "explaining") -> Iterator[tuple[int, Sample]]:
    """Number and sample of each image, with progress; an unreadable one is named and left out.

    Raises :class:`DataError` if none can be read.
    """
    found = False
    with progress(what, len(source), unit="image") as advance:
        for index in range(len(source)):
            try:
                sample = source.sample(index)
            except UnreadableImage as error:
                say(f"left out: {error}")
                continue
            yield index, sample
            found = True
            advance(index + 1)
    if not found:
        raise DataError("none of the images can be read; give others.")
