"""A table with a row for each image: CSV, TSV or JSON Lines with its path, its label or labels, perhaps its split."""

from __future__ import annotations

import csv
import itertools
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from vitrail.data import split
from vitrail.data.folder import ImageFiles
from vitrail.data.source import Dataset, SplitName
from vitrail.errors import DataError

DELIMITERS = {"csv": ",", "tsv": "\t"}
IMAGE_COLUMNS = ("image", "path", "file", "filename", "filepath", "imagepath", "imagefile", "imagename", "img")
LABEL_COLUMNS = ("label", "labels", "class", "classes", "classname", "category", "categories", "target", "tag", "tags")
PROBED = 100  # images that are looked for before a table is believed

Record = dict[str, object]  # column -> a CSV's cell or any value of JSON


class Row(NamedTuple):
    """What one row of a table says about an image."""

    table: Path
    line: int
    image: str
    label: object
    split: SplitName


def recognises(path: Path, word: str) -> bool:
    """Whether ``path`` is a table of the kind ``word`` (csv, tsv, jsonl), or a folder with ``train.<word>``."""
    if path.is_dir():
        return (path / f"train.{word}").is_file()
    return path.suffix.lower() == f".{word}"


def open_table(path: Path, word: str, image_column: str | None = None, label_column: str | None = None) -> Dataset:
    """Read a table, or a folder's tables ``train``, ``validation`` (or ``val``) and ``test``.

    Several labels of an image are a list in JSON Lines, and separated by ``|`` or ``;`` in CSV and TSV; in such a table
    an empty cell is an image without any label. A column ``split`` parts a single table.

    Args:
        path: the table (UTF-8), or the folder of tables; paths of images start from the table's folder.
        word: ``csv``, ``tsv`` or ``jsonl``.
        image_column, label_column: names of columns; by default the first of the usual ones that is there.

    Raises:
        DataError: the table is damaged or lacks a column, a row is not complete, or no image is where it should be.
    """
    rows = [
        row
        for part, table in _tables(path, word).items()
        for row in _rows(table, word, part, image_column, label_column)
    ]
    separator = None if word == "jsonl" else _separator(rows)
    many = separator is not None or any(isinstance(row.label, list) for row in rows)
    files: dict[SplitName, list[str]] = {}
    names: dict[SplitName, list[str | tuple[str, ...]]] = {}
    for row in rows:
        files.setdefault(row.split, []).append(row.image)
        labels = _label_names(row, separator)
        names.setdefault(row.split, []).append(labels if many else _only(row, labels))
    classes, numbers = split.number_labels(str(path), names)
    root = str(path if path.is_dir() else path.parent)
    sources = {name: ImageFiles(root, tuple(files[name]), numbers[name]) for name in files}
    notes = (f"An image may have several labels, separated by '{separator}'.",) if separator else ()
    return Dataset(str(path), word, classes, sources, many_labels=many, notes=notes)


def find_column(
    where: str, columns: Iterable[object], usual: Sequence[str], flag: str, given: str | None = None
) -> str:
    """The column called ``given``, or else the first of the ``usual`` names; case, spaces and ``_-`` do not matter.

    Raises:
        DataError: there is none; it says which columns there are, and the flag that names one.
    """
    found = [str(column) for column in columns]
    wanted = usual if given is None else (_plain(given),)
    by_plain_name = {_plain(column): column for column in reversed(found)}
    for name in wanted:
        if name in by_plain_name:
            return by_plain_name[name]
    missing = f"'{given}'" if given is not None else " or ".join(f"'{name}'" for name in usual[:4])
    raise DataError(f"{where} has no column {missing}; it has {', '.join(found[:20])}: name the right one with {flag}.")


def _plain(column: str) -> str:
    return "".join(letter for letter in column.lower() if letter not in " _-")


def _tables(path: Path, word: str) -> dict[SplitName | None, Path]:
    """The table of each split; a single table has the key None."""
    if not path.is_dir():
        return {None: path}
    tables: dict[SplitName | None, Path] = {}
    for name, part in split.WORDS.items():
        table = path / f"{name}.{word}"
        if not table.is_file():
            continue
        if part in tables:
            raise DataError(f"{path} has two tables for {part}: {tables[part].name} and {table.name}; keep one.")
        tables[part] = table
    if "train" not in tables:
        raise DataError(f"{path} has no table train.{word}; add it, or give a single table.")
    return tables


def _rows(
    table: Path, word: str, part: SplitName | None, image_column: str | None, label_column: str | None
) -> list[Row]:
    found = records(table, word)
    first = next(found, None)
    if first is None:
        raise DataError(f"{table} has no rows; it needs a column for the image's path and one for its label.")
    columns = first[1].keys()
    image = find_column(str(table), columns, IMAGE_COLUMNS, "--image-column", image_column)
    label = find_column(str(table), columns, LABEL_COLUMNS, "--label-column", label_column)
    rows = [
        Row(table, line, _image(table, line, record.get(image)), record.get(label), part or _split(table, line, record))
        for line, record in itertools.chain([first], found)
    ]
    _refuse_missing(table, rows)
    return rows


def records(table: Path, word: str, *, header: bool = True) -> Iterator[tuple[int, Record]]:
    """Each row of a table of the kind ``word`` with the number of the line where it ends.

    Without a ``header`` the columns of CSV and TSV are called 1, 2, 3 … Raises :class:`DataError` for a table that
    cannot be read, and for a damaged row, with its line.
    """
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            if word == "jsonl":
                yield from _json_records(table, file)
            else:
                yield from _csv_records(table, file, DELIMITERS[word], header)
    except UnicodeDecodeError as error:
        raise DataError(f"{table} is not UTF-8 text ({error.reason}); save it as UTF-8.") from error
    except OSError as error:
        raise DataError(f"cannot read {table}: {(error.strerror or '').lower()}.") from error


def _csv_records(table: Path, lines: Iterable[str], delimiter: str, header: bool) -> Iterator[tuple[int, Record]]:
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    columns: list[str] = []
    try:
        for cells in reader:
            if not columns and header:
                columns = [cell.strip() for cell in cells]
                continue
            columns = columns or [str(number) for number in range(1, len(cells) + 1)]
            if len(cells) == len(columns):
                yield reader.line_num, dict(zip(columns, cells, strict=True))
            elif cells:  # an empty line is no row
                raise DataError(
                    f"{table}, line {reader.line_num}: {len(cells)} cells under {len(columns)} columns; mend the row."
                )
    except csv.Error as error:
        raise DataError(f"{table}, line {reader.line_num}: {error}; mend the row.") from error


def _json_records(table: Path, lines: Iterable[str]) -> Iterator[tuple[int, Record]]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{table}, line {number}: this is not JSON; each line must be one object.") from error
        if not isinstance(record, dict):
            raise DataError(f"{table}, line {number}: this is not a JSON object with an image and a label.")
        yield number, record


def _image(table: Path, line: int, value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{table}, line {line}: the path of the image is missing; fill it in or leave the row out.")
    return value.strip()


def _split(table: Path, line: int, record: Record) -> SplitName:
    """What the column ``split`` says; train where there is no such column."""
    if "split" not in record:
        return "train"
    name = split.split_named(str(record["split"]))
    if name is None:
        raise DataError(
            f"{table}, line {line}: the split '{record['split']}' is none of train, validation (or val) and test."
        )
    return name


def _refuse_missing(table: Path, rows: Sequence[Row]) -> None:
    """A missing image is left out when it is read; if all are missing, the paths are wrong."""
    probed = [os.path.join(table.parent, row.image) for row in rows[:PROBED]]  # noqa: PTH118
    if not any(os.path.isfile(file) for file in probed):  # noqa: PTH113 - Path.is_file raises for impossible names
        raise DataError(
            f"{table}: none of its first {len(probed)} images exists, such as {probed[0]}; "
            "paths must be absolute or start from the table's folder."
        )


def _separator(rows: Sequence[Row]) -> str | None:
    """What separates several labels in one cell, None if no cell has several."""
    return next((mark for mark in "|;" if any(mark in str(row.label) for row in rows)), None)


def _label_names(row: Row, separator: str | None) -> tuple[str, ...]:
    values = row.label if isinstance(row.label, list) else [row.label]
    if separator:
        values = str(row.label).split(separator)
    names = (_label_name(row, value) for value in values)
    return tuple(name for name in names if name)


def _label_name(row: Row, value: object) -> str:
    if value is None:
        return ""
    if not isinstance(value, str | int | float):
        raise DataError(f"{row.table}, line {row.line}: a label must be text, a number, or a list of these.")
    return str(value).strip()


def _only(row: Row, names: tuple[str, ...]) -> str:
    if not names:
        raise DataError(f"{row.table}, line {row.line}: the label is missing; fill it in or leave the row out.")
    return names[0]
