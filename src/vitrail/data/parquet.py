"""Parquet files with encoded images, as data sets of the Hugging Face Hub are stored.

Format: https://huggingface.co/docs/datasets/about_dataset_features: a column of type ``Image`` is a struct of ``bytes``
and ``path``; the class names are in the schema's metadata under ``huggingface``.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vitrail.data import split
from vitrail.data.sample import Label, Labels
from vitrail.data.source import Dataset, EncodedImages, stamp_of
from vitrail.data.table import LABEL_COLUMNS, find_column
from vitrail.errors import DataError, SettingError, UnreadableImage

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow import parquet

IMAGE_COLUMNS = ("image", "img", "picture", "bytes", "jpg", "jpeg", "png", "webp")
UNLABELLED = (None, -1)  # how the Hub stores a class that is kept secret
KEPT_BYTES = 2**28  # row groups that a process keeps in memory: small data sets fit whole, large ones are read anew
_kept: OrderedDict[tuple[Path, int, str], pa.ChunkedArray] = OrderedDict()


@dataclass(frozen=True)
class ParquetImages(EncodedImages):
    """Images in Parquet files, read by row group.

    Attributes:
        files: the Parquet files.
        column: the column of the images.
        groups: ``(g, 3)`` int64: for each row group the number of its file, its number there, and its first row there.
        starts: ``(g,)`` int64: for each row group the number of its first image here.
        labels: a label for each image; images of one class share one object.
    """

    files: Sequence[str]
    column: str
    groups: NDArray[np.int64]
    starts: NDArray[np.int64]
    labels: Sequence[Label | Labels]

    def __len__(self) -> int:
        return len(self.labels)

    def name(self, index: int) -> str:
        file, _, first, row = self._place(index)
        return f"{self.files[file]}#{first + row}"

    def label(self, index: int) -> Label | Labels:
        return self.labels[index]

    def encoded(self, index: int) -> bytes:
        file, group, _, row = self._place(index)
        try:
            value = _row_group(Path(self.files[file]), group, self.column)[row].as_py()
        except DataError as error:
            raise UnreadableImage(self.name(index), str(error)) from error
        stored = value.get("bytes") if isinstance(value, dict) else value
        if not isinstance(stored, bytes):
            raise UnreadableImage(self.name(index), "there are no bytes in its row")
        return stored

    def stamp(self, index: int) -> str:
        return stamp_of(self.files[self._place(index)[0]])

    def _place(self, index: int) -> tuple[int, int, int, int]:
        """File, row group, the group's first row in the file, row in the group."""
        number = int(np.searchsorted(self.starts, index, side="right")) - 1
        file, group, first = self.groups[number].tolist()
        return file, group, first, index - int(self.starts[number])


def recognises(path: Path) -> bool:
    """Whether ``path`` is a Parquet file, or a folder with some (in itself, or in ``data``, ``train`` … below it)."""
    return bool(_files(path)) if path.is_dir() else path.suffix.lower() == ".parquet"


def open_parquet(path: Path, image_column: str | None = None, label_column: str | None = None) -> Dataset:
    """Read the labels of all files, and where their images are.

    A label is a number, a text, or a list of these. A file belongs to the split that its name begins with
    (``train-00000-of-00002.parquet``) or that its folder is called, else to ``train``.

    Raises:
        SettingError: pyarrow is not installed.
        DataError: a file is damaged, lacks a column, or has a row without a label.
    """
    found = _files(path)
    if not found:
        raise DataError(f"{path} holds no .parquet file; give the folder of the files.")
    image, label, class_names = _columns(found[0], image_column, label_column)
    files = split.by_split(found, path)
    stored = {part: [_labels(file, label) for file in of_split] for part, of_split in files.items()}
    secret = [part for part in stored if _unlabelled(stored[part])]
    names = {part: _names(files[part], stored[part], class_names) for part in stored if part not in secret}
    classes, labels = split.number_labels(str(path), names, class_names)
    sources = {part: _source(files[part], image, labels[part]) for part in names}
    many = any(isinstance(name, tuple) for of_split in names.values() for name in of_split)
    notes = tuple(f"The {part} split has no labels and was left out." for part in secret)
    return Dataset(str(path), "parquet", classes, sources, many_labels=many, notes=notes)


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    below = (
        file for file in path.glob("*/*.parquet") if file.parent.name == "data" or split.split_named(file.parent.name)
    )
    files = list(path.glob("*.parquet")) or list(below)
    return sorted(file for file in files if not file.name.startswith("."))


def _open(file: Path) -> parquet.ParquetFile:
    """Open a file without threads, which would not survive a fork."""
    from pyarrow import parquet

    return parquet.ParquetFile(file, pre_buffer=False)


@contextmanager
def _arrow_errors(file: Path) -> Iterator[None]:
    """Turn what pyarrow raises into a sentence."""
    try:
        from pyarrow import ArrowException
    except ImportError as error:
        raise SettingError("Parquet files are read with pyarrow: pip install 'vitrail[data]'") from error
    try:
        yield
    except (ArrowException, OSError) as error:
        raise DataError(f"cannot read {file}: it is missing or damaged; fetch it again.") from error


def _columns(file: Path, image_column: str | None, label_column: str | None) -> tuple[str, str, Sequence[str] | None]:
    """The column of images, that of labels, and the names of the classes where the file has them."""
    with _arrow_errors(file), _open(file) as stored:
        schema = stored.schema_arrow
    image = find_column(str(file), schema.names, IMAGE_COLUMNS, "--image-column", image_column)
    label = find_column(str(file), schema.names, LABEL_COLUMNS, "--label-column", label_column)
    return image, label, _class_names(schema.metadata or {}, label)


def _class_names(metadata: Mapping[bytes, bytes], column: str) -> Sequence[str] | None:
    """Names in a feature ``ClassLabel``, or in a list of such."""
    try:
        feature = json.loads(metadata[b"huggingface"])["info"]["features"][column]
        feature = feature[0] if isinstance(feature, list) else feature.get("feature", feature)
        return [str(name) for name in feature["names"]]
    except (KeyError, IndexError, TypeError, AttributeError, ValueError):  # no such metadata, or of another kind
        return None


def _labels(file: Path, column: str) -> list[object]:
    """The label of each row, as stored."""
    with _arrow_errors(file), _open(file) as stored:
        if column not in stored.schema_arrow.names:
            raise DataError(f"{file} has no column '{column}', unlike the files before it; leave it out or mend it.")
        labels: list[object] = stored.read(columns=[column], use_threads=False).column(0).to_pylist()
    return labels


def _unlabelled(files: Iterable[Iterable[object]]) -> bool:
    return all(value in UNLABELLED for values in files for value in values)


def _names(
    files: Sequence[Path], stored: Sequence[Sequence[object]], class_names: Sequence[str] | None
) -> list[str | tuple[str, ...]]:
    """The class name, or names, of each row of each file."""
    return [
        tuple(_name(f"{file}#{row}", each, class_names) for each in value)
        if isinstance(value, list)
        else _name(f"{file}#{row}", value, class_names)
        for file, values in zip(files, stored, strict=True)
        for row, value in enumerate(values)
    ]


def _name(where: str, value: object, class_names: Sequence[str] | None) -> str:
    name = str(value).strip()
    if not isinstance(value, str | int) or not name:
        raise DataError(f"{where}: a label must be a number, a name, or a list of these.")
    if class_names is None or isinstance(value, str):
        return name
    if not 0 <= value < len(class_names):
        raise DataError(f"{where}: the label {value} is none of the {len(class_names)} classes of the file.")
    return class_names[value]


def _source(files: Sequence[Path], column: str, labels: Sequence[Label | Labels]) -> ParquetImages:
    groups, rows = [], []
    for number, file in enumerate(files):
        with _arrow_errors(file), _open(file) as stored:
            sizes = [stored.metadata.row_group(group).num_rows for group in range(stored.num_row_groups)]
        groups += [(number, group, sum(sizes[:group])) for group in range(len(sizes))]
        rows += sizes
    starts = np.cumsum([0, *rows[:-1]])
    return ParquetImages(tuple(map(str, files)), column, np.array(groups, np.int64), starts, labels)


def _row_group(file: Path, group: int, column: str) -> pa.ChunkedArray:
    """One column of a row group; the last ones used are kept."""
    key = (file, group, column)
    values = _kept.pop(key, None)
    if values is None:
        with _arrow_errors(file), _open(file) as stored:
            values = stored.read_row_group(group, columns=[column], use_threads=False).column(0)
        while _kept and values.nbytes + sum(other.nbytes for other in _kept.values()) > KEPT_BYTES:
            _kept.popitem(last=False)
    _kept[key] = values
    return values
