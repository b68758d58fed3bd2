"""A corpus: texts to learn from, with the parts that are held back."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from vitrail.data.rng import generator
from vitrail.data.source import SplitName
from vitrail.data.split import by_split
from vitrail.errors import DataError

TEXT, ROWS = (".txt", ".text", ".md"), (".csv", ".tsv", ".jsonl")
COLUMNS = ("text", "sentence", "content", "document", "body")
HELD_BACK = {"validation": 0.05, "test": 0.05}  # of a corpus that comes in one part


@dataclass(frozen=True)
class Corpus:
    """Texts by split.

    Attributes:
        name: what a person typed to get it.
        splits: the documents of ``train``, ``validation`` and ``test``.
        notes: sentences that a person should read, such as how the splits were made.
    """

    name: str
    splits: Mapping[SplitName, tuple[str, ...]]
    notes: tuple[str, ...] = ()

    @property
    def characters(self) -> int:
        return sum(len(text) for texts in self.splits.values() for text in texts)


def open_corpus(data: str | Path, *, text_column: str | None = None, seed: int = 0, as_given: bool = False) -> Corpus:
    """Open texts with every split.

    A text file is a document; of a table (CSV, TSV, JSON Lines) each row's text is one; a folder is all of those in it,
    parted where names begin with train, valid or test. What is not parted is: one document by place, its last tenth
    being validation and test; many by chance.

    ``as_given`` leaves the parts as they are, for measuring a trained model. Raises :class:`DataError` for what is not
    there, not UTF-8, or empty.
    """
    path = Path(data).expanduser()
    files = _files(path)
    splits = {
        split: tuple(text for file in of_split for text in _documents(file, text_column) if text.strip())
        for split, of_split in by_split(files, path if path.is_dir() else path.parent).items()
    }
    splits = {split: texts for split, texts in splits.items() if texts}
    if not splits:
        raise DataError(f"{data} holds no text; give a file or folder with some.")
    if as_given:
        return Corpus(str(data), splits)
    if "train" not in splits:
        raise DataError(f"{data} has {' and '.join(splits)} but no train part; add the texts to learn from.")
    complete, notes = _completed(splits, seed)
    return Corpus(str(data), complete, notes)


def read_text(file: Path) -> str:
    """The text of a UTF-8 file. Raises :class:`DataError` for one that cannot be read, or is something else."""
    try:
        return file.read_bytes().decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{file} is not UTF-8: byte {error.start:,} cannot be read; save it as UTF-8, or "
            f"convert it: iconv -f latin1 -t utf8 {file.name}."
        ) from error
    except OSError as error:
        raise DataError(f"cannot read {file}: {(error.strerror or '').lower()}.") from error


def read_rows(file: Path) -> Iterator[Mapping[str, str]]:
    """The rows of a CSV or TSV file with a header, or of a JSON Lines file, as dictionaries.

    Raises :class:`DataError` for a line that is no such row.
    """
    text = read_text(file)
    if file.suffix.lower() == ".jsonl":
        for number, line in enumerate(text.splitlines(), 1):
            try:
                row = json.loads(line) if line.strip() else {}
            except ValueError as error:
                raise DataError(f"{file}, line {number} is not JSON: {error}.") from error
            if not isinstance(row, dict):
                raise DataError(f"{file}, line {number} is not an object with names and values.")
            if row:
                yield row
        return
    reader = csv.DictReader(
        io.StringIO(text, newline=""), delimiter="\t" if file.suffix.lower() == ".tsv" else ",", strict=True
    )
    try:
        yield from ({key: value or "" for key, value in row.items() if key is not None} for row in reader)
    except csv.Error as error:
        raise DataError(f"{file}, line {reader.reader.line_num} cannot be read as a table: {error}.") from error


def column_named(file: Path, row: Mapping[str, str], wanted: str | None, usual: Sequence[str], flag: str) -> str:
    """The name of a column: the one that is wanted, else the first usual one. Raises :class:`DataError` if none."""
    names = (wanted,) if wanted is not None else usual
    found = next((name for name in names if name in row), None)
    if found is None:
        raise DataError(f"{file} has no column {' or '.join(names)}; it has {', '.join(row)}: name one with {flag}.")
    return found


def _files(path: Path) -> list[Path]:
    if not path.exists():
        raise DataError(f"there is no {path}; give a text file, a table of texts, or a folder of them.")
    if path.is_file():
        return [path]
    kinds = (*TEXT, *ROWS)
    files = sorted(file for file in path.rglob("*") if file.suffix.lower() in kinds and not file.name.startswith("."))
    if not files:
        raise DataError(f"{path} has no files of text ({', '.join(kinds)}).")
    return files


def _documents(file: Path, text_column: str | None) -> Iterator[str]:
    if file.suffix.lower() not in ROWS:
        yield read_text(file)
        return
    name = None
    for row in read_rows(file):
        name = name or column_named(file, row, text_column, COLUMNS, "--text-column")
        yield str(row.get(name, ""))


def _completed(
    splits: Mapping[SplitName, tuple[str, ...]], seed: int
) -> tuple[dict[SplitName, tuple[str, ...]], tuple[str, ...]]:
    """With validation and test parted from train where they are missing."""
    missing = {split: share for split, share in HELD_BACK.items() if split not in splits}
    if not missing or "validation" in splits:
        return dict(splits), ()
    parted = _by_place if len(splits["train"]) == 1 else _by_chance
    parts = parted(splits["train"], list(missing.values()), seed)
    how = "by place" if parted is _by_place else f"by chance (seed {seed})"
    shares = ", ".join(f"{share:.0%} {split}" for split, share in missing.items())
    note = f"The text was parted {how}: {1 - sum(missing.values()):.0%} train, {shares}."
    return {**splits, **dict(zip(("train", *missing), parts, strict=True))}, (note,)  # type: ignore[dict-item]


def _by_place(texts: Sequence[str], shares: Sequence[float], seed: int) -> list[tuple[str, ...]]:
    """One document cut: the first part is train, the others follow."""
    text, ends = texts[0], [1 - sum(shares[number:]) for number in range(len(shares))] + [1.0]
    cuts = [0, *(round(end * len(text)) for end in ends)]
    return [(text[start:end],) for start, end in pairwise(cuts)]


def _by_chance(texts: Sequence[str], shares: Sequence[float], seed: int) -> list[tuple[str, ...]]:
    order = generator(seed, "split").permutation(len(texts))
    counts = [max(1, round(share * len(texts))) for share in shares]
    cuts = [0, len(texts) - sum(counts)]
    for count in counts:
        cuts.append(cuts[-1] + count)
    return [tuple(texts[i] for i in sorted(order[a:b])) for a, b in pairwise(cuts)]
