"""Decoded images kept from one epoch, and one run, to the next: a source with a store beside it.

For training it keeps each image as crops are cut from it: decoded, and reduced as far as its smallest crop allows
(`augment.reduction_for`); for evaluation, as the model sees it. Both are what decoding would give again, to the last
bit. The key of an image is its name and the stamp of its file, so that a file that changes is decoded anew.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from vitrail.console import say
from vitrail.data.geometry import move
from vitrail.data.jpeg import REDUCTIONS
from vitrail.data.picture import Picture
from vitrail.data.preprocess import Preprocess
from vitrail.data.sample import Image, Label, Labels, Sample
from vitrail.data.source import Dataset, Source
from vitrail.data.store import Kept, Store
from vitrail.errors import SettingError

UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}
ENDING = ".pixels"
_open: dict[Path, Store | None] = {}  # opened once a process, and before it forks others


@dataclass(frozen=True)
class Cached(Source):
    """Another source, of which images are kept in the store at ``path``, of at most ``limit`` bytes.

    ``data`` is what a person calls the data.
    """

    source: Source
    path: Path
    limit: int
    data: str

    def __len__(self) -> int:
        return len(self.source)

    def name(self, index: int) -> str:
        return self.source.name(index)

    def label(self, index: int) -> Label | Labels | None:
        return self.source.label(index)

    def encoded(self, index: int) -> bytes:
        return self.source.encoded(index)

    def sample(self, index: int) -> Sample:
        return self.source.sample(index)

    def stamp(self, index: int) -> str | None:
        return self.source.stamp(index)

    def targets(self, index: int) -> Sample:
        return self.source.targets(index)

    def picture(self, index: int) -> Picture:
        key, store = self._key(index), self._store()
        if key is None or store is None:
            return self.source.picture(index)
        for reduction in reversed(REDUCTIONS):
            kept = store.find(_reduced_key(key, reduction))
            if kept is not None:
                return KeptPicture(self.source, index, store, key, reduction, kept)
        return Keeping(self.source.picture(index), store, key)

    def view(self, index: int, preprocess: Preprocess) -> Sample:
        key, store = self._key(index), self._store()
        if key is None or store is None:
            return self.source.view(index, preprocess)
        key = _hash(key, json.dumps(preprocess.to_json()))
        kept = store.find(key)
        if kept is None:
            sample, geometry = preprocess.apply(self.source.sample(index))
            store.keep(key, sample.image, geometry.source)
            return sample
        return move(self.source.targets(index), kept.pixels, preprocess.geometry(kept.whole))

    def _key(self, index: int) -> bytes | None:
        """What an image is kept under; None where it is not to be."""
        try:
            stamp = self.source.stamp(index)
        except (OSError, ValueError):  # it is not there: whoever reads it says so
            return None
        return None if stamp is None else _hash(b"", f"{self.name(index)}\n{stamp}")

    def _store(self) -> Store | None:
        """The store, opened by each process that was not forked from one that had; None where it cannot be."""
        if self.path not in _open:
            try:
                _open[self.path] = Store(self.path, self.limit, len(self), self.data)
            except OSError as error:
                reason = (error.strerror or str(error)).lower()
                say(f"the cache {self.path} cannot be used ({reason}); going on without")
                _open[self.path] = None
        return _open[self.path]


class Keeping(Picture):
    """A picture of which is kept what is decoded."""

    def __init__(self, picture: Picture, store: Store, key: bytes) -> None:
        self.picture, self.store, self.key = picture, store, key
        self.sample, self.size, self.channels = picture.sample, picture.size, picture.channels

    def whole(self) -> Sample:
        return replace(self.sample, image=self.picture.whole().image)

    def reduced(self, reduction: int, rows: int | None = None) -> Image:
        key = _reduced_key(self.key, reduction)
        if (kept := self.store.find(key)) is not None:
            return kept.pixels
        image = self.picture.reduced(reduction)
        self.store.keep(key, image, self.size)
        return image


class KeptPicture(Picture):
    """A picture that is kept at one size; for any other its image is decoded, and kept at that."""

    def __init__(self, source: Source, index: int, store: Store, key: bytes, reduction: int, kept: Kept) -> None:
        self.source, self.index, self.store, self.key = source, index, store, key
        self.reduction, self.pixels = reduction, kept.pixels
        self.sample, self.size, self.channels = source.targets(index), kept.whole, kept.pixels.shape[2]

    def whole(self) -> Sample:
        return replace(self.sample, image=self.source.sample(self.index).image)

    def reduced(self, reduction: int, rows: int | None = None) -> Image:
        if reduction == self.reduction:
            return self.pixels
        return Keeping(self.source.picture(self.index), self.store, self.key).reduced(reduction)


def cached(dataset: Dataset, cache: str) -> Dataset:
    """The data set with a cache for the images of all its splits, as ``cache`` says: none, auto, or a size.

    Raises :class:`SettingError` for anything else.
    """
    splits = {name: cached_source(source, dataset.name, cache) for name, source in dataset.splits.items()}
    return replace(dataset, splits=splits)


def cached_source(source: Source, data: str, cache: str) -> Source:
    """The same for one source of the data that a person calls ``data``."""
    if cache == "none":
        return source
    data = str(Path(data).expanduser().resolve())
    path = file_of(data)
    limit = limit_of(cache, path)
    try:
        worth_it = source.stamp(0) is not None
    except (OSError, ValueError):
        worth_it = True
    if not worth_it:
        say("--cache is of no use here: these images need no decoding")
        return source
    known = path in _open
    found = Cached(source, path, limit, data)
    if found._store() is not None and not known:
        size = in_words(path.stat().st_size)
        say(f"cache: {path}, {size} of at most {in_words(limit)}; `vitrail cache` shows and removes what is kept")
    return found


def limit_of(cache: str, path: Path | None = None) -> int:
    """The most bytes that the flag allows for the store at ``path``; ``none`` is 0. Raises :class:`SettingError`."""
    if cache == "none":
        return 0
    if cache == "auto":
        return _free(path) // 4 if path else 1
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) *([KMGT]I?)?B?", cache.upper())
    if match is None or not (limit := int(float(match[1]) * UNITS[match[2] or ""])):
        raise SettingError(f"--cache must be none, auto, or a size such as 4GiB, not '{cache}'.")
    return limit


def folder() -> Path:
    """Where caches lie: $VITRAIL_CACHE, or where this system keeps what programs can make again."""
    if named := os.environ.get("VITRAIL_CACHE"):
        return Path(named).expanduser()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "vitrail" / "cache"
    usual = Path.home() / ("Library/Caches" if sys.platform == "darwin" else ".cache")
    return Path(os.environ.get("XDG_CACHE_HOME") or usual) / "vitrail"


def file_of(data: str) -> Path:
    """The file for data of this name."""
    stem = re.sub(r"[^\w.-]+", "-", Path(data).stem)[:60] or "data"
    return folder() / f"{stem}-{hashlib.blake2b(data.encode(), digest_size=5).hexdigest()}{ENDING}"


def in_words(size: int) -> str:
    """Bytes for people."""
    power = min(4, max(0, size.bit_length() - 1) // 10)
    number = size / 1024**power
    return f"{number:,.{1 if number < 100 and power else 0}f} {('B', 'KiB', 'MiB', 'GiB', 'TiB')[power]}"


def _free(path: Path) -> int:
    """Bytes that the disk has free, and those that the store takes already."""
    there = next(parent for parent in path.parents if parent.exists())
    return shutil.disk_usage(there).free + (path.stat().st_size if path.exists() else 0)


def _reduced_key(key: bytes, reduction: int) -> bytes:
    return _hash(key, f"1/{reduction}")


def _hash(key: bytes, text: str) -> bytes:
    return hashlib.blake2b(text.encode(), key=key, digest_size=16).digest()
