"""Texts, or pairs of texts, with a class: tables, folders of class folders, and files with a text in each line."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from vitrail.data.source import SplitName
from vitrail.data.split import by_split, split_named
from vitrail.data.table import LABEL_COLUMNS, Record, find_column, records
from vitrail.data.text.corpus import COLUMNS, ROWS, TEXT, read_text
from vitrail.data.text.examples import LabelledText, TextData, class_names, complete
from vitrail.errors import DataError

FIRST_COLUMNS = ("sentence1", "premise", "question1", "text1", "first", *COLUMNS)
SECOND_COLUMNS = ("sentence2", "hypothesis", "question2", "text2", "second", "pair")
NAMES = "classes.txt"  # beside a table whose classes are 1, 2, 3 …: what they are called, one a line
NO_TEXTS = ("readme", "license", "licence", "classes")  # files that lie beside texts and are none


class Columns(NamedTuple):
    """Which columns of a table hold what; None for the first of the usual ones.

    Several names with commas between are joined by spaces. A number counts the columns, from 1, of a table without a
    header.
    """

    text: str | None = None
    pair: str | None = None
    label: str | None = None


def open_labelled(
    data: str | Path, columns: Columns, *, pairs: bool, seed: int = 0, as_given: bool = False
) -> TextData[LabelledText]:
    """Open texts with their classes.

    - A table (CSV, TSV, JSON Lines), or a folder of such, parted where names begin with train, valid or test, or by a
      column ``split``; of pairs only this.
    - A folder with a folder of text files for each class, perhaps below ``train``, ``test`` …
    - A folder with a file for each class, each of whose lines is a text. Files of one name are told apart by their
      endings (``rt-polarity.pos``, ``rt-polarity.neg``), others by their names (``pos.txt``, ``neg.txt``).

    Args:
        pairs: whether each example has two texts.
        as_given: whether to leave it at the splits that there are, and whatever classes, as for data to measure on.

    Raises :class:`DataError` for what is not there, damaged, not UTF-8, or of one class only.
    """
    path = Path(data).expanduser()
    splits = _examples(path, columns, pairs)
    found = TextData(str(data), splits)
    if as_given:
        return found
    classes = class_names(str(data), {split: [(str(one.label),) for one in of] for split, of in splits.items()})
    return complete(replace(found, classes=classes), seed)


def _examples(path: Path, columns: Columns, pairs: bool) -> dict[SplitName, tuple[LabelledText, ...]]:
    if not path.exists():
        raise DataError(f"there is no {path}; give a table of texts and classes, or a folder with texts of each class.")
    if path.is_file() and path.suffix.lower() not in ROWS:
        raise DataError(f"{path} says nothing of classes; give a table of texts and classes ({', '.join(ROWS)}).")
    tables = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.suffix.lower() in ROWS)
    if tables:
        parts = by_split(tables, path if path.is_dir() else path.parent)
        found = [
            one for part, files in parts.items() for file in files for one in _of_table(file, part, columns, pairs)
        ]
    elif pairs:
        raise DataError(f"{path} has no table; pairs of texts come in one with a column for each ({', '.join(ROWS)}).")
    else:
        found = list(_of_folder(path))
    splits: dict[SplitName, tuple[LabelledText, ...]] = {}
    for part in ("train", "validation", "test"):
        if of_part := tuple(one for split, one in found if split == part):
            splits[part] = of_part
    if not splits:
        raise DataError(f"{path} holds no texts of classes; give a folder of class folders, or a table.")
    return splits


def _of_table(table: Path, part: SplitName, columns: Columns, pairs: bool) -> Iterator[tuple[SplitName, LabelledText]]:
    counted = any(_is_counted(column) for column in columns)
    rows = records(table, table.suffix.lower()[1:], header=not counted)
    first = next(rows, None)
    if first is None:
        raise DataError(f"{table} has no rows; it needs a column of texts and one of classes.")
    if counted and columns.label is None:
        raise DataError(f"{table} has no names of columns; say with --label-column which one holds the classes.")
    there = list(first[1])
    text = _columns(table, there, FIRST_COLUMNS if pairs else COLUMNS, "--text-column", columns.text)
    second = _columns(table, there, SECOND_COLUMNS, "--pair-column", columns.pair) if pairs else ()
    label = find_column(str(table), there, LABEL_COLUMNS, "--label-column", columns.label)
    names = _names_beside(table)
    for line, record in itertools.chain([first], rows):
        name = str(_cell(table, line, record, label))
        yield (
            _split(table, line, record, part),
            LabelledText(
                f"{table.name}:{line}",
                _text(table, line, record, text),
                names.get(name, name),
                _text(table, line, record, second) if pairs else None,
            ),
        )


def _columns(table: Path, there: Sequence[str], usual: Sequence[str], flag: str, given: str | None) -> tuple[str, ...]:
    """The columns that make up a text."""
    if given is None or given in there:
        return (find_column(str(table), there, usual, flag, given),)
    return tuple(find_column(str(table), there, usual, flag, each.strip()) for each in given.split(","))


def _is_counted(column: str | None) -> bool:
    return column is not None and all(part.strip().isdigit() for part in column.split(","))


def _text(table: Path, line: int, record: Record, columns: Sequence[str]) -> str:
    return " ".join(str(_cell(table, line, record, column)) for column in columns)


def _cell(table: Path, line: int, record: Record, column: str) -> object:
    value = record.get(column)
    if isinstance(value, str):
        value = value.strip()
    if value is None or value == "" or isinstance(value, list | dict):
        raise DataError(
            f"{table}, line {line}: there is nothing to use in '{column}'; fill it in or leave the row out."
        )
    return value


def _split(table: Path, line: int, record: Record, part: SplitName) -> SplitName:
    """What a column ``split`` says; without one, what the name of the file says."""
    if "split" not in record:
        return part
    found = split_named(str(record["split"]))
    if found is None:
        raise DataError(f"{table}, line {line}: the split '{record['split']}' is none of train, validation and test.")
    return found


def _names_beside(table: Path) -> dict[str, str]:
    """Names of the classes 1, 2, 3 … that a file beside the table gives, as the sets of Zhang et al. (2015) have it."""
    file = table.parent / NAMES
    if not file.is_file():
        return {}
    return {str(number): name.strip() for number, name in enumerate(_lines(file), 1)}


def _of_folder(path: Path) -> Iterator[tuple[SplitName, LabelledText]]:
    parts = {split: folder for folder in _folders(path) if (split := split_named(folder.name)) is not None}
    for split, folder in (parts or {"train": path}).items():
        classes = [each for each in _folders(folder) if any(file.suffix.lower() in TEXT for file in each.iterdir())]
        of_part = _of_class_folders(folder, classes) if classes else _of_class_files(folder)
        yield from ((split, example) for example in of_part)


def _of_class_folders(folder: Path, classes: Sequence[Path]) -> Iterator[LabelledText]:
    for of_class in classes:
        for file in sorted(each for each in of_class.iterdir() if each.suffix.lower() in TEXT):
            if text := read_text(file).strip():
                yield LabelledText(str(file.relative_to(folder)), text, of_class.name)


def _of_class_files(folder: Path) -> Iterator[LabelledText]:
    files = [file for file in sorted(folder.iterdir()) if file.is_file() and not file.name.startswith(".")]
    files = [file for file in files if file.stem.lower() not in NO_TEXTS]
    by_ending = len({file.stem for file in files}) == 1 and len(files) > 1
    files = files if by_ending else [file for file in files if file.suffix.lower() in TEXT]
    if any(split_named(file.stem) for file in files):
        raise DataError(f"the files of {folder} are named for splits, not for classes; give tables with both.")
    for file in files:
        label = file.suffix[1:] if by_ending else file.stem
        for number, line in enumerate(_lines(file), 1):
            yield LabelledText(f"{file.name}:{number}", line.strip(), label)


def _folders(path: Path) -> list[Path]:
    return sorted(each for each in path.iterdir() if each.is_dir() and not each.name.startswith("."))


def _lines(file: Path) -> list[str]:
    return [line for line in read_text(file).split("\n") if line.strip()]
