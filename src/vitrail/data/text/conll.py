"""Words with a tag each: CoNLL's columns, and JSON Lines with lists."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from vitrail.data.source import SplitName
from vitrail.data.split import by_split
from vitrail.data.table import Record, records
from vitrail.data.text.corpus import read_text
from vitrail.data.text.examples import TaggedWords, TextData, class_names, complete
from vitrail.errors import DataError

COLUMNS = (".conll", ".bio", ".iob", ".iob2", ".txt", ".tsv")
KINDS = (*COLUMNS, ".jsonl")
WORDS, TAGS = ("tokens", "words"), ("tags", "ner_tags", "labels")  # in JSON Lines


def open_tagged(data: str | Path, *, seed: int = 0, as_given: bool = False) -> TextData[TaggedWords]:
    """Open sentences whose words have tags, such as ``B-PER``, ``I-PER``, ``O``.

    CoNLL's files have a word a line, its tag in the last of the columns that spaces or tabs part, and an empty line
    after each sentence. JSON Lines have a list of ``tokens`` and one of ``tags``. A folder is all such files in it,
    parted where names begin with train, valid or test.

    Args:
        as_given: whether to leave it at the splits that there are, and whatever tags, as for data to measure on.

    Raises :class:`DataError` for what is not there, damaged, not UTF-8, or of one tag only.
    """
    path = Path(data).expanduser()
    if not path.exists():
        raise DataError(f"there is no {path}; give a file of words with their tags, or a folder of them.")
    files = sorted(each for each in path.rglob("*") if each.suffix.lower() in KINDS) if path.is_dir() else [path]
    files = [file for file in files if file.stem.lower() not in ("readme", "license")]
    splits: dict[SplitName, tuple[TaggedWords, ...]] = {}
    for split, of_split in by_split(files, path if path.is_dir() else path.parent).items():
        if sentences := tuple(sentence for file in of_split for sentence in _sentences(file)):
            splits[split] = sentences
    if not splits:
        raise DataError(f"{data} holds no words with tags; give a file with a word and its tag in each line.")
    found = TextData(str(data), splits)
    if as_given:
        return found
    classes = class_names(str(data), {split: [one.tags or () for one in of] for split, of in splits.items()})
    return complete(replace(found, classes=classes), seed)


def _sentences(file: Path) -> Iterator[TaggedWords]:
    return _of_json_lines(file) if file.suffix.lower() == ".jsonl" else _of_columns(file)


def _of_json_lines(file: Path) -> Iterator[TaggedWords]:
    for line, record in records(file, "jsonl"):
        words, tags = (_list(file, line, record, names) for names in (WORDS, TAGS))
        if len(words) != len(tags):
            raise DataError(f"{file}, line {line}: {len(words)} tokens have {len(tags)} tags; mend the line.")
        if words:
            yield TaggedWords(f"{file.name}:{line}", words, tags)


def _of_columns(file: Path) -> Iterator[TaggedWords]:
    rows: list[tuple[str, str]] = []
    for number, line in enumerate([*read_text(file).split("\n"), ""], 1):
        cells = line.split("\t") if "\t" in line else re.split(" +", line.strip())
        if line.strip() and not line.startswith("-DOCSTART-"):
            if len(cells) < 2 or not cells[0].strip() or not cells[-1].strip():
                raise DataError(f"{file}, line {number} is not a word with its tag: '{line.strip()[:40]}'; mend it.")
            rows.append((cells[0].strip(), cells[-1].strip()))
        elif rows:
            words, tags = zip(*rows, strict=True)
            yield TaggedWords(f"{file.name}:{number - len(rows)}", words, tags)
            rows = []


def _list(file: Path, line: int, record: Record, names: tuple[str, ...]) -> tuple[str, ...]:
    value = next((record[name] for name in names if name in record), None)
    if not isinstance(value, list) or not all(isinstance(each, str | int) for each in value):
        raise DataError(f"{file}, line {line} has no list called {' or '.join(names)}; mend the line.")
    return tuple(str(each) for each in value)
