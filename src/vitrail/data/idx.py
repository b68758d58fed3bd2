"""IDX files, as MNIST is published: one file of images and one of labels for each split, gzipped or not.

Format: http://yann.lecun.com/exdb/mnist, "file formats": magic number, sizes as big-endian 32-bit integers, bytes.
"""

from __future__ import annotations

import functools
import gzip
import math
import re
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vitrail.data import split
from vitrail.data.sample import Image, Label, Labels, Sample
from vitrail.data.source import Dataset, Source, SplitName
from vitrail.errors import DataError

IMAGES_NAME = re.compile(r"-images([-.])idx3-ubyte(\.gz)?$")  # some copies write .idx3-ubyte
IMAGES_MAGIC = 0x00000803  # unsigned bytes, three dimensions
LABELS_MAGIC = 0x00000801  # unsigned bytes, one dimension


@dataclass(frozen=True)
class IdxImages(Source):
    """The images of one IDX file; each process reads the file once, when it first needs it.

    Attributes:
        path: the file of images.
        labels: a label for each image; images of one class share one object.
    """

    path: str
    labels: Sequence[Label | Labels]

    def __len__(self) -> int:
        return len(self.labels)

    def name(self, index: int) -> str:
        return f"{self.path}#{index}"

    def label(self, index: int) -> Label | Labels:
        return self.labels[index]

    def encoded(self, index: int) -> bytes:
        return self._image(index).tobytes()

    def sample(self, index: int) -> Sample:
        return Sample(self._image(index), self.name(index), self.labels[index])

    def _image(self, index: int) -> Image:
        return _images(Path(self.path))[index][:, :, None]


def recognises(path: Path) -> bool:
    """Whether ``path`` is an IDX file of images with its labels beside it, or a folder with such files."""
    return bool(_image_files(path)) and all(_labels_file(file).is_file() for file in _image_files(path))


def open_idx(path: Path) -> Dataset:
    """Read ``train-images-idx3-ubyte`` and the like: files named ``t10k`` or ``test`` are the test split.

    Classes are the values of the labels. A single file of images is read as ``train``, whatever its name.

    Raises:
        DataError: a file is damaged, the two files do not fit each other, or several files could be the same split.
    """
    files: dict[SplitName, Path] = {}
    for file in _image_files(path):
        part = _split(file) if path.is_dir() else "train"
        if part in files:
            raise DataError(f"{path} has two files for {part}: {files[part].name} and {file.name}; name one of them.")
        files[part] = file
    if not files:
        raise DataError(f"{path} is or has no file called …-images-idx3-ubyte (or .gz); rename it, or see --format.")
    values = {part: _labels(_labels_file(file)) for part, file in files.items()}
    for part, file in files.items():
        if len(_images(file)) != len(values[part]):
            raise DataError(
                f"{file} has {len(_images(file))} images but {_labels_file(file).name} has {len(values[part])} labels; "
                "take both from the same release."
            )
    names = {part: [str(value) for value in of_split.tolist()] for part, of_split in values.items()}
    classes, labels = split.number_labels(str(path), names)
    sources = {part: IdxImages(str(file), labels[part]) for part, file in files.items()}
    return Dataset(str(path), "idx", classes, sources)


def _image_files(path: Path) -> list[Path]:
    candidates = sorted(path.iterdir()) if path.is_dir() else [path]
    return [file for file in candidates if IMAGES_NAME.search(file.name)]


def _labels_file(images: Path) -> Path:
    """``train-labels-idx1-ubyte`` for ``train-images-idx3-ubyte``; either may be gzipped."""
    plain = images.with_name(IMAGES_NAME.sub(r"-labels\1idx1-ubyte", images.name))
    zipped = plain.with_name(f"{plain.name}.gz")
    return zipped if zipped.is_file() and (images.suffix == ".gz" or not plain.is_file()) else plain


def _split(images: Path) -> SplitName:
    return "test" if re.search(r"(?<![a-z])(t10k|test)", images.name.lower()) else "train"


@functools.lru_cache(maxsize=4)  # decompressed once a process; MNIST takes 55 MB
def _images(path: Path) -> NDArray[np.uint8]:
    """``(n, H, W)`` uint8, read-only."""
    return _read(path, IMAGES_MAGIC, dimensions=3)


def _labels(path: Path) -> NDArray[np.uint8]:
    """``(n,)`` uint8."""
    return _read(path, LABELS_MAGIC, dimensions=1)


def _read(path: Path, magic: int, dimensions: int) -> NDArray[np.uint8]:
    stored = _bytes(path)
    header = 4 + 4 * dimensions
    if len(stored) < header or struct.unpack_from(">I", stored)[0] != magic:
        raise DataError(f"{path} does not begin as an IDX file with {dimensions} dimensions of bytes; fetch it again.")
    sizes = struct.unpack_from(f">{dimensions}I", stored, 4)
    if len(stored) - header != math.prod(sizes) or 0 in sizes:
        shape = " x ".join(map(str, sizes))
        raise DataError(f"{path} should hold {shape} bytes, but holds {len(stored) - header}; fetch it again.")
    return np.frombuffer(stored, np.uint8, offset=header).reshape(sizes)


def _bytes(path: Path) -> bytes:
    try:
        if path.suffix == ".gz":
            with gzip.open(path) as file:
                return file.read()
        return path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"cannot read {path}: it is missing or damaged ({error}); fetch it again.") from error
