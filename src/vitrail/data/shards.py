"""WebDataset shards: tar files in which the files of one image share a key, such as 0007.jpg and 0007.cls.

Format: https://github.com/webdataset/webdataset, "The WebDataset Format". The key is the path up to the first dot of
the file's name. Headers are read once; after that every image is read by its place, in any order.
"""

from __future__ import annotations

import glob
import json
import re
import tarfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vitrail.data import read, split
from vitrail.data.sample import Label, Labels
from vitrail.data.source import Dataset, EncodedImages, stamp_of
from vitrail.errors import DataError, UnreadableImage

COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
MAGIC_OF_COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")
CLASS_FILES = ("classnames.txt", "classes.txt")  # one class a line, for labels that are numbers
LONGEST_LABEL = 2**20  # bytes of a .cls or .json that are believed to be a label
MEMBER = re.compile(r"(?P<key>(?:.*/)?[^./]+)\.(?P<ending>[^/]*)", re.DOTALL)
NUMBER = re.compile("[0-9]{1,9}")
RANGE = re.compile(r"\{([0-9]+)\.\.([0-9]+)\}")


@dataclass(frozen=True)
class ShardImages(EncodedImages):
    """Images inside tar files.

    Attributes:
        shards: the tar files.
        keys: the key of each image.
        places: ``(n, 3)`` int64: for each image the number of its shard, its first byte there, and its size in bytes.
        labels: a label for each image; images of one class share one object.
    """

    shards: Sequence[str]
    keys: Sequence[str]
    places: NDArray[np.int64]
    labels: Sequence[Label | Labels]

    def __len__(self) -> int:
        return len(self.keys)

    def name(self, index: int) -> str:
        return f"{self.shards[self.places[index, 0]]}#{self.keys[index]}"

    def label(self, index: int) -> Label | Labels:
        return self.labels[index]

    def encoded(self, index: int) -> bytes:
        shard, start, size = self.places[index].tolist()
        try:
            with Path(self.shards[shard]).open("rb") as file:  # opened for each image: safe in forked workers
                file.seek(start)
                return file.read(size)
        except OSError as error:
            raise UnreadableImage(self.name(index), (error.strerror or "").lower()) from error

    def encoded_size(self, index: int) -> int:
        """Bytes of the image as stored."""
        return int(self.places[index, 2])

    def stamp(self, index: int) -> str:
        return stamp_of(self.shards[self.places[index, 0]])


class Entry(NamedTuple):
    """An image found in a shard, with its label as stored: text, or what JSON says."""

    shard: int
    key: str
    start: int
    size: int
    label: object


def recognises(path: Path) -> bool:
    """Whether ``path`` is a tar file, a folder with tar files, or a pattern such as ``train-{000..012}.tar``."""
    if path.is_dir():
        inside = [entry for entry in path.iterdir() if not entry.name.startswith(".")]
        has_folders = any(entry.is_dir() for entry in inside)  # an archive beside class folders is what they came in
        return not has_folders and any(_is_shard(entry.name) for entry in inside)
    return _is_shard(path.name)


def open_shards(path: Path) -> Dataset:
    """Find the images in one shard, in a folder's shards, or in those that a pattern names.

    A label is the content of ``.cls`` (a number or a name) or the value ``label`` in ``.json`` (also a list). Numbers
    are names of their own unless ``classnames.txt`` or ``classes.txt`` lies beside the shards. A shard belongs to the
    split that its name begins with, else to ``train``.

    Raises:
        DataError: a shard is missing, damaged or compressed, or no image with a label is found.
    """
    shards = _shard_files(path)
    if not shards:
        raise DataError(f"{path} holds no .tar file; give the folder of the shards.")
    class_names = _class_names(shards[0].parent)
    incomplete: Counter[str] = Counter()
    files = split.by_split(shards, shards[0].parent)
    entries = {part: _entries(of_split, incomplete) for part, of_split in files.items()}
    entries = {part: found for part, found in entries.items() if found}
    if not entries:
        raise DataError(
            f'{path} has no image with a label (.cls, or .json with "label") under the same key; '
            "if it is a packed folder of class folders, unpack it."
        )
    many = any(isinstance(entry.label, list) for found in entries.values() for entry in found)
    names = {
        part: [_names(f"{files[part][entry.shard]}#{entry.key}", entry.label, class_names, many) for entry in found]
        for part, found in entries.items()
    }
    classes, labels = split.number_labels(str(path), names, class_names)
    sources = {part: _source(files[part], found, labels[part]) for part, found in entries.items()}
    notes = tuple(f"{count} keys without {what} were left out." for what, count in sorted(incomplete.items()))
    return Dataset(str(path), "shards", classes, sources, many_labels=many, notes=notes)


def _source(shards: Sequence[Path], entries: Sequence[Entry], labels: Sequence[Label | Labels]) -> ShardImages:
    places = np.array([(entry.shard, entry.start, entry.size) for entry in entries], np.int64)
    return ShardImages(tuple(map(str, shards)), tuple(entry.key for entry in entries), places, labels)


def _is_shard(file_name: str) -> bool:
    return file_name.lower().endswith((".tar", *COMPRESSED))


def _shard_files(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(file for file in path.iterdir() if _is_shard(file.name) and not file.name.startswith("."))
    shards = []
    for name in _expand(str(path)):
        files = [Path(name)] if Path(name).exists() else [Path(file) for file in sorted(glob.glob(name))]  # noqa: PTH207
        if not files:
            raise DataError(f"there is no shard {name}; check the path or the pattern.")
        shards.extend(files)
    return shards


def _expand(pattern: str) -> Iterator[str]:
    """``a-{08..10}.tar`` as a-08.tar, a-09.tar, a-10.tar; a shell does the same."""
    braces = RANGE.search(pattern)
    if braces is None:
        yield pattern
        return
    first, last = braces.groups()
    for number in range(int(first), int(last) + 1):
        yield from _expand(f"{pattern[: braces.start()]}{number:0{len(first)}}{pattern[braces.end() :]}")


def _class_names(folder: Path) -> list[str] | None:
    for file in CLASS_FILES:
        if (folder / file).is_file():
            try:
                return [line.strip() for line in (folder / file).read_text("utf-8-sig").splitlines() if line.strip()]
            except (OSError, UnicodeDecodeError) as error:
                raise DataError(f"cannot read {folder / file} as UTF-8 text with one class a line.") from error
    return None


def _entries(shards: Sequence[Path], incomplete: Counter[str]) -> list[Entry]:
    return [entry for number, shard in enumerate(shards) for entry in _entries_of(number, shard, incomplete)]


def _entries_of(number: int, shard: Path, incomplete: Counter[str]) -> list[Entry]:
    """The images of a shard that have a label; ``incomplete`` counts the keys where one of the two is missing."""
    images: dict[str, tuple[int, int]] = {}
    labels: dict[str, object] = {}
    for key, ending, start, size, content in _members(shard):
        if f".{ending}" in read.IMAGE_ENDINGS:
            images.setdefault(key, (start, size))
        elif ending == "cls":
            labels[key] = _text(f"{shard}#{key}", content)
        elif "label" in (record := _json(f"{shard}#{key}", content)):
            labels.setdefault(key, record["label"])
    incomplete.update(["a label"] * len(images.keys() - labels.keys()))
    incomplete.update(["an image"] * len(labels.keys() - images.keys()))
    return [Entry(number, key, *place, labels[key]) for key, place in images.items() if key in labels]


def _members(shard: Path) -> Iterator[tuple[str, str, int, int, bytes]]:
    """Key, ending, first byte, size of every image and label in a shard; of a label the content too."""
    try:
        with shard.open("rb") as file:
            if file.read(4).startswith(MAGIC_OF_COMPRESSED):
                raise DataError(
                    f"{shard} is compressed, so no image can be read by its place; "
                    "decompress it (gunzip) or, if it is a packed folder of class folders, unpack it."
                )
            file.seek(0)
            with tarfile.open(fileobj=file, mode="r:") as tar:
                for member in tar:
                    if tar.offset <= member.offset:  # a negative size: tarfile would go round in circles
                        raise tarfile.ReadError("a header points backwards")
                    yield from _member(tar, member)
                file.seek(tar.offset)
                if file.read(tarfile.BLOCKSIZE).strip(b"\0"):  # tarfile stops at a damaged header without a word
                    raise tarfile.ReadError("a header is damaged")
    except DataError:
        raise
    except Exception as error:  # for damaged bytes tarfile raises nearly anything
        raise DataError(f"cannot read the shard {shard}: {error}; fetch it again.") from error


def _member(tar: tarfile.TarFile, member: tarfile.TarInfo) -> Iterator[tuple[str, str, int, int, bytes]]:
    name = MEMBER.fullmatch(member.name)
    if name is None or not member.isreg() or member.issparse():
        return
    ending = name["ending"].lower()
    if f".{ending}" in read.IMAGE_ENDINGS:
        yield name["key"], ending, member.offset_data, member.size, b""
    elif ending in ("cls", "json") and member.size <= LONGEST_LABEL:
        content = tar.extractfile(member)
        yield name["key"], ending, member.offset_data, member.size, content.read() if content else b""


def _text(where: str, content: bytes) -> str:
    try:
        return content.decode("utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: the label is not UTF-8 text.") from error


def _json(where: str, content: bytes) -> dict[str, object]:
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: its .json is not JSON.") from error
    return value if isinstance(value, dict) else {}


def _names(where: str, label: object, class_names: Sequence[str] | None, many: bool) -> str | tuple[str, ...]:
    values = label if isinstance(label, list) else [label]
    names = tuple(_name(where, value, class_names) for value in values)
    return names if many else names[0]


def _name(where: str, value: object, class_names: Sequence[str] | None) -> str:
    name = str(value).strip()
    if not isinstance(value, str | int) or not name:
        raise DataError(f"{where}: a label must be a number, a name, or a list of these.")
    if class_names is None or not NUMBER.fullmatch(name):
        return name
    if int(name) >= len(class_names):
        raise DataError(f"{where}: the label {name} is beyond the {len(class_names)} class names beside the shards.")
    return class_names[int(name)]
