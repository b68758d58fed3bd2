"""Images by their paths, without labels: what a person gives to `predict`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vitrail.data.read import read_bytes
from vitrail.data.source import EncodedImages, stamp_of


@dataclass(frozen=True)
class Files(EncodedImages):
    """Files or, under a name of their own, the bytes of images."""

    items: Sequence[Path | tuple[str, bytes]]

    def __len__(self) -> int:
        return len(self.items)

    def name(self, index: int) -> str:
        item = self.items[index]
        return item[0] if isinstance(item, tuple) else str(item)

    def label(self, index: int) -> None:
        return None

    def encoded(self, index: int) -> bytes:
        item = self.items[index]
        return item[1] if isinstance(item, tuple) else read_bytes(item)

    def stamp(self, index: int) -> str | None:
        item = self.items[index]
        return None if isinstance(item, tuple) else stamp_of(str(item))
