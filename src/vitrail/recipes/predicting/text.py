"""What a model of text says of texts: of those on the command line, in files, or on standard input."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vitrail.console import say
from vitrail.data.table import find_column, records
from vitrail.data.text.corpus import ROWS, TEXT, read_text
from vitrail.data.text.labelled import Columns
from vitrail.errors import DataError
from vitrail.nn.inference import ready
from vitrail.recipes.evaluating.text import cut_note, outputs_of
from vitrail.recipes.predicting.settings import Predict
from vitrail.tasks import Answering, Tagging, TextTask
from vitrail.train.precision import choose_device, choose_precision

BETWEEN = "|||"  # the pieces of one input
SHOWN = 70  # characters of a text
OF_TASKS = {
    "tagging": (".conll", ".bio", ".iob", ".iob2", ".jsonl"),
    "answer": (".json", ".jsonl"),
}  # read as for training


def predict_text(settings: Predict, task: TextTask[Any]) -> list[dict[str, Any]]:
    """Answers in the order of the texts; printed for people unless ``--json``."""
    pieces = [each for word in settings.images for each in texts_of(word, task, settings)]
    if not pieces:
        raise DataError("there is no text; give one in quotation marks, a file of them, or - for standard input.")
    examples = [task.example(f"text {number}", *each) for number, each in enumerate(pieces, 1)]
    rows = task.rows(examples)
    if note := cut_note(task, [rows]):
        say(note)
    device = choose_device(settings.device)
    dtype = choose_precision(device, settings.precision)
    outputs = outputs_of(ready(task.to(device), dtype), rows, device, dtype, batch_size=settings.batch_size)
    answers = [{**answer, "error": None} for answer in task.answers(examples, rows, outputs, settings.top)]
    if not settings.json:
        for answer in answers:
            print(line(task, answer), flush=True)
    return answers


def texts_of(word: str, task: TextTask[Any], settings: Predict) -> Iterator[tuple[str, ...]]:
    """The inputs that a word of the command line stands for, each with the pieces that the task asks for.

    A file has one a line, a table one a row, a task's own files what they are for; anything else is one itself.
    """
    path = Path(word)
    if word == "-":
        yield from of_lines(sys.stdin.buffer.read().decode("utf-8", "replace"), task)
    elif is_file(path) and path.suffix.lower() in OF_TASKS.get(task.name, ()):
        examples = task.open(word, Columns(), as_given=True).splits
        yield from (example.texts for of_split in examples.values() for example in of_split)
    elif is_file(path) and path.suffix.lower() in ROWS:
        yield from of_table(path, task, Columns(settings.text_column, settings.pair_column))
    elif is_file(path):
        yield from of_lines(read_text(path), task)
    elif path.suffix.lower() in (*TEXT, *ROWS) and " " not in word:
        raise DataError(f"there is no file {word}; give a text in quotation marks, or a file of them.")
    else:
        yield taken_apart(word, task)


def of_lines(text: str, task: TextTask[Any]) -> Iterator[tuple[str, ...]]:
    """An input a line, but for empty ones."""
    return (taken_apart(line, task) for line in text.split("\n") if line.strip())


def taken_apart(text: str, task: TextTask[Any]) -> tuple[str, ...]:
    """A text as the pieces that a task asks for, between which a person puts ``|||``."""
    pieces = tuple(piece.strip() for piece in text.split(BETWEEN)) if len(task.pieces) > 1 else (text.strip(),)
    if len(pieces) != len(task.pieces) or not all(pieces):
        wanted = f" {BETWEEN} ".join(task.pieces)
        raise DataError(f"{task.name} needs '{wanted}', not '{shortened(text)}'.")
    return pieces


def of_table(path: Path, task: TextTask[Any], columns: Columns) -> Iterator[tuple[str, ...]]:
    """An input a row, from the columns that have the task's pieces."""
    names: list[str] = []
    for line_number, record in records(path, path.suffix.lower()[1:]):
        if not names:
            flags = zip(task.columns, ("--text-column", "--pair-column"), columns[:2], strict=False)
            names = [find_column(str(path), record, usual, flag, given) for usual, flag, given in flags]
        pieces = tuple(str(record.get(name) or "").strip() for name in names)
        if not all(pieces):
            raise DataError(f"{path}, line {line_number}: there is no text; fill it in or leave the row out.")
        yield pieces


def is_file(path: Path) -> bool:
    """Whether there is such a file; a sentence may be no possible name of one."""
    try:
        return path.is_file()
    except OSError:
        return False


def line(task: TextTask[Any], answer: dict[str, Any]) -> str:
    """An answer for people."""
    if isinstance(task, Answering):
        said = "no answer" if answer["answer"] is None else answer["answer"]
        return f"{shortened(answer['question'])}: {said} ({answer['score']:.1%})"
    if isinstance(task, Tagging):
        return bracketed(answer) if task.marked else " ".join(f"{of['word']}/{of['tag']}" for of in answer["words"])
    pieces = f" {BETWEEN} ".join(shortened(answer[piece]) for piece in task.pieces)
    return f"{pieces}: " + ", ".join(f"{of['label']} {of['score']:.1%}" for of in answer["predictions"])


def bracketed(answer: dict[str, Any]) -> str:
    """The words with what was found in brackets: ``[EU ORG] rejects [German MISC] call``."""
    words = [of["word"] for of in answer["words"]]
    for entity in answer["entities"]:
        words[entity["start"]] = f"[{words[entity['start']]}"
        words[entity["stop"] - 1] += f" {entity['kind']}]"
    return " ".join(words)


def shortened(text: str) -> str:
    """What fits into a line."""
    plain = " ".join(text.split())
    return plain if len(plain) <= SHOWN else f"{plain[: SHOWN - 1]}…"
