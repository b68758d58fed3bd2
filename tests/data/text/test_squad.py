"""Questions from SQuAD's files and from JSON Lines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from vitrail.data.text.examples import Answer
from vitrail.data.text.squad import open_questions
from vitrail.errors import DataError

CONTEXT = "Ada Lovelace wrote the first program in 1843. Ada was a countess."


def squad(*questions: dict[str, Any], context: str = CONTEXT) -> str:
    return json.dumps(
        {"version": "2.0", "data": [{"title": "t", "paragraphs": [{"context": context, "qas": questions}]}]}
    )


def test_squad_with_several_answers_and_with_none(tmp_path: Path) -> None:
    asked = {"id": "1", "question": "Who? ", "answers": [{"text": "Ada", "answer_start": 46}, {"text": "Ada Lovelace"}]}
    none = {"id": "2", "question": "Where?", "answers": [], "is_impossible": True}
    (tmp_path / "a.json").write_text(squad(asked, none))
    one, two = open_questions(tmp_path / "a.json", as_given=True).splits["train"]
    assert (one.name, one.question, one.context) == ("1", "Who?", CONTEXT)
    assert one.answers == (Answer("Ada", 46), Answer("Ada Lovelace", 0))
    assert two.answers == ()


def test_json_lines(tmp_path: Path) -> None:
    rows = [
        {"question": "When?", "context": CONTEXT, "answer": "1843"},
        {"question": "Who?", "context": CONTEXT, "answer": "Ada", "start": 46},
        {"question": "Where?", "context": CONTEXT, "answer": ""},
        {"question": "Why?", "context": CONTEXT},
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    found = open_questions(tmp_path / "a.jsonl", as_given=True).splits["train"]
    assert [one.answers for one in found] == [(Answer("1843", CONTEXT.index("1843")),), (Answer("Ada", 46),), (), ()]


def test_an_answer_that_is_elsewhere_is_found_and_one_that_is_nowhere_is_counted(tmp_path: Path) -> None:
    wrong = {"id": "1", "question": "Who?", "answers": [{"text": "Ada", "answer_start": 7}]}
    lost = {"id": "2", "question": "Who?", "answers": [{"text": "Babbage", "answer_start": 0}]}
    (tmp_path / "a.json").write_text(squad(wrong, lost))
    data = open_questions(tmp_path / "a.json", as_given=True)
    assert [one.answers for one in data.splits["train"]] == [(Answer("Ada", 0),)]
    assert data.notes[0].startswith("1 questions were left out")


def test_questions_of_one_context_stay_together(tmp_path: Path) -> None:
    rows = [{"question": f"q{n}", "context": f"context {n // 4}", "answer": "context"} for n in range(80)]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    data = open_questions(tmp_path / "a.jsonl")
    contexts = {split: {one.context for one in of} for split, of in data.splits.items()}
    assert {split: len(of) for split, of in contexts.items()} == {"train": 16, "validation": 2, "test": 2}
    assert len(set().union(*contexts.values())) == 20


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.json", "{", "not a file of questions as SQuAD has them"),
        ("b.json", '{"data": [{"paragraphs": [{"qas": [{"question": "q"}]}]}]}', "it has no 'answers'"),
        ("c.json", "[]", "not a file of questions"),
        ("d.jsonl", '{"question": "q", "context": " "}', "d.jsonl:1 lacks its question or its context"),
        ("e.jsonl", '{"question": 3, "context": "c"}', "lacks its question"),
        ("f.jsonl", "", "has no questions"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=message):
        open_questions(tmp_path / name)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no"):
        open_questions(tmp_path / "none.json")
