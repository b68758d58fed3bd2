"""Questions whose answers are parts of a text: SQuAD's JSON (Rajpurkar et al. 2016 and 2018), and JSON Lines."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vitrail.data.source import SplitName
from vitrail.data.split import by_split
from vitrail.data.table import records
from vitrail.data.text.corpus import read_text
from vitrail.data.text.examples import Answer, Question, TextData, complete
from vitrail.errors import DataError

KINDS = (".json", ".jsonl")


def open_questions(data: str | Path, *, seed: int = 0, as_given: bool = False) -> TextData[Question]:
    """Open questions with the texts that answer them.

    SQuAD's files, version 1.1 or 2.0; JSON Lines with ``question``, ``context``, ``answer`` and perhaps ``start``, the
    number of the answer's first character; no answer, or an empty one, says that the context has none. A folder is all
    such files in it, parted where names begin with train, dev or test. An answer that its context does not hold is left
    out, and counted.

    Args:
        as_given: whether to leave it at the splits that there are.

    Raises :class:`DataError` for what is not there, damaged, or not UTF-8.
    """
    path = Path(data).expanduser()
    if not path.exists():
        raise DataError(f"there is no {path}; give a file of questions as SQuAD has them, or JSON Lines.")
    files = sorted(each for each in path.rglob("*") if each.suffix.lower() in KINDS) if path.is_dir() else [path]
    splits: dict[SplitName, tuple[Question, ...]] = {}
    lost: list[str] = []
    for split, of_split in by_split(files, path if path.is_dir() else path.parent).items():
        if questions := tuple(question for file in of_split for question in _questions(file, lost)):
            splits[split] = questions
    if not splits or ("train" not in splits and not as_given):
        what = f"{' and '.join(splits)} but no train part" if splits else "no questions"
        raise DataError(f"{data} has {what}; give a file of questions as SQuAD has them, or JSON Lines.")
    notes: tuple[str, ...] = ()
    if lost:
        notes = (f"{len(lost):,} questions were left out, whose answer is not in their context: {lost[0]} …",)
    found = TextData(str(data), splits, notes=notes)
    return found if as_given else complete(found, seed)


def _questions(file: Path, lost: list[str]) -> Iterator[Question]:
    """The questions of a file; the names of those whose answers are not in their context are added to ``lost``."""
    rows = _of_json_lines(file) if file.suffix.lower() == ".jsonl" else _of_squad(file)
    for name, question, context, answers in rows:
        if not isinstance(question, str) or not isinstance(context, str) or not question.strip() or not context.strip():
            raise DataError(f"{file}: {name} lacks its question or its context; fill it in or leave it out.")
        found = [place for text, start in answers if (place := _place(context, text, start)) is not None]
        if answers and not found:
            lost.append(name)
        else:
            yield Question(name, question.strip(), context, tuple(found))


def _of_json_lines(file: Path) -> Iterator[tuple[str, Any, Any, list[tuple[str, Any]]]]:
    for line, record in records(file, "jsonl"):
        answer = record.get("answer")
        given = [(answer.strip(), record.get("start"))] if isinstance(answer, str) and answer.strip() else []
        yield f"{file.name}:{line}", record.get("question"), record.get("context"), given


def _of_squad(file: Path) -> Iterator[tuple[str, Any, Any, list[tuple[str, Any]]]]:
    try:
        for article in json.loads(read_text(file))["data"]:
            for paragraph in article["paragraphs"]:
                for number, each in enumerate(paragraph["qas"]):
                    given = [] if each.get("is_impossible") else _answers(each["answers"])
                    name = str(each.get("id", f"{file.name}#{number}"))
                    yield name, each["question"], paragraph["context"], given
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        what = f"it has no {error}" if isinstance(error, KeyError) else str(error)
        raise DataError(f"{file} is not a file of questions as SQuAD has them: {what}.") from error


def _answers(given: Sequence[Mapping[str, Any]]) -> list[tuple[str, Any]]:
    return [(answer["text"].strip(), answer.get("answer_start")) for answer in given if answer["text"].strip()]


def _place(context: str, text: str, start: Any) -> Answer | None:
    """Where an answer is: at ``start``, or else where it first occurs."""
    if isinstance(start, int) and start >= 0 and context.startswith(text, start):
        return Answer(text, start)
    found = context.find(text)
    return None if found < 0 else Answer(text, found)
