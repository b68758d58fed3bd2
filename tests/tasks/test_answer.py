"""Answers as parts of a text: windows, ends, the best span by brute force, thresholds, learning, JSON and back."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from vitrail.data.text.examples import Answer, Question
from vitrail.data.text.rows import Rows
from vitrail.errors import SettingError
from vitrail.tasks.answer import LONGEST, Answering, best_span, ends
from vitrail.weights.save import save_description, save_weights
from vitrail.weights.saved import load

CONTEXT = "ada wrote it in london"
WHERE = Question("q", "where", CONTEXT, (Answer("london", 16),))
NOWHERE = Question("n", "why", CONTEXT, ())


@pytest.fixture
def task(text) -> Answering:
    tokenizer = text.letters()
    return Answering("bert-base", text.bert(tokenizer, context=40), tokenizer).eval()


def spelled(task: Answering, row) -> list[str]:
    return [task.tokenizer.token(number) for number in row.ids.tolist()]


def test_question_and_context_and_the_ends_of_the_answer(task) -> None:
    (row,) = task.rows([WHERE]).rows
    assert spelled(task, row) == ["[CLS]", *"where", "[SEP]", *CONTEXT, "[SEP]"]
    assert row.segments.tolist() == [0] * 7 + [1] * 23
    first, last = row.labels
    assert spelled(task, row)[first : last + 1] == list("london")
    assert (row.places[first, 0], row.places[last, 1]) == (16, 22)
    assert task.rows([NOWHERE]).rows[0].labels.tolist() == [0, 0]


@pytest.mark.parametrize("length", [14, 17, 20, 29])
def test_windows_overlap_and_cover_a_long_context(text, length: int) -> None:
    tokenizer = text.letters()
    task = Answering("bert-base", text.bert(tokenizer), tokenizer, length=length)
    rows = task.rows([WHERE]).rows
    assert all(len(row.ids) <= length for row in rows)
    covered = [set(row.places[row.places[:, 0] >= 0, 0].tolist()) for row in rows]
    assert set().union(*covered) == set(range(len(CONTEXT)))
    assert all(one & other for one, other in itertools.pairwise(covered))
    assert len(covered) == 1 or not covered[-1] <= covered[-2]
    for row in rows:
        whole = set(range(16, 22)) <= set(row.places[:, 0].tolist())
        text_of_labels = "".join(spelled(task, row)[row.labels[0] : row.labels[1] + 1])
        assert text_of_labels == ("london" if whole else "[CLS]")


def test_a_long_question_is_cut_and_counted(text) -> None:
    tokenizer = text.letters()
    task = Answering("bert-base", text.bert(tokenizer), tokenizer, length=21)
    rows = task.rows([Question("q", "where did she write it", CONTEXT, ()), WHERE])
    assert rows.cut == 1
    assert spelled(task, rows.rows[0])[1:10] == list("where did")


def test_the_loss_is_the_mean_of_both_ends(task) -> None:
    batch = task.rows([WHERE, NOWHERE]).batch(range(2))
    logits = task(batch.ids, batch.segments, batch.mask)
    lengths = batch.mask.sum(dim=1)
    each = [
        F.cross_entropy(logits[row, : lengths[row], end][None], batch.labels[row, end][None])
        for row in range(2)
        for end in range(2)
    ]
    assert task.loss(batch)["loss"].item() == pytest.approx(torch.stack(each).mean().item(), rel=1e-5)


def test_the_best_span_is_that_of_all_spans() -> None:
    rng = np.random.default_rng(0)
    context = "".join(rng.choice(list("abcdefg "), 90))
    for _ in range(20):
        windows = []
        for first in (0, 25):
            places = np.full((70, 2), -1)
            places[4:69] = np.stack([np.arange(first, first + 65), np.arange(first, first + 65) + 1], axis=1)
            windows.append((places, rng.normal(0, 3, (70, 2)).astype(np.float32)))
        spans = {
            (n, a, b): float(logits[a, 0]) + float(logits[b, 1])
            for n, (_, logits) in enumerate(windows)
            for a in range(4, 69)
            for b in range(a, min(a + LONGEST, 69))
        }
        (n, a, b), score = max(spans.items(), key=lambda item: item[1])
        nothing = min(float(logits[0, 0]) + float(logits[0, 1]) for _, logits in windows)
        everything = np.logaddexp.reduce([*spans.values(), nothing])
        found = best_span(context, windows)
        part = context[windows[n][0][a, 0] : windows[n][0][b, 1]]
        assert found.text == part.strip()
        assert context[found.start : found.start + len(found.text)] == found.text
        assert found.score == pytest.approx(np.exp(score - everything))
        assert found.nothing == pytest.approx(np.exp(nothing - everything))
        assert found.margin == pytest.approx(nothing - score, abs=1e-5)


def test_ends_of_byte_pairs_that_carry_their_space() -> None:
    characters = np.array([[-1, -1], [0, 3], [3, 9], [9, 12], [-1, -1]])  # "ada", " wrote", " it"
    assert ends((Answer("wrote", 4),), characters).tolist() == [2, 2]
    assert ends((Answer("wrote it", 4),), characters).tolist() == [2, 3]
    assert ends((Answer("it in", 10),), characters).tolist() == [0, 0]  # not the whole of it
    assert ends((Answer("x", 40),), characters).tolist() == [0, 0]


def test_answers_are_learned_and_so_is_that_there_is_none(text) -> None:
    tokenizer = text.words("who where why ada wrote it in london .")
    task = Answering("bert-base", text.bert(tokenizer, context=16), tokenizer, threshold=50.0)
    examples = [
        Question("1", "who", CONTEXT, (Answer("ada", 0),)),
        Question("2", "where", CONTEXT, (Answer("in london", 13), Answer("london", 16))),
        Question("3", "why", CONTEXT, ()),
    ]
    rows = task.rows(examples)
    text.learn(task, rows, steps=300)
    outputs = text.outputs(task, rows)
    assert [one.text for one in task.found(examples, rows, outputs)][:2] == ["ada", "in london"]
    assert task.figures(examples, rows, outputs)["f1"] == pytest.approx(2 / 3)  # as yet it answers every question
    task.calibrate(examples, rows, outputs)
    figures = task.figures(examples, rows, outputs)
    assert figures["exact_match"] == figures["f1"] == figures["unanswerable"]["f1"] == 1.0
    assert task.predict("who", CONTEXT)["answer"] == "ada"
    said = task.predict("why", CONTEXT)
    assert (said["answer"], said["start"]) == (None, None)
    assert said["score"] > 0.9
    fitted = task.threshold
    task.calibrate(examples[:2], Rows(rows.rows[:2], 0, 0), outputs[:2])
    assert task.threshold == fitted < 50  # these tell nothing of it
    task.threshold = None
    task.calibrate(examples, rows, outputs)
    assert task.predict("why", CONTEXT)["answer"] is not None  # every question has one
    task.threshold = fitted
    with pytest.raises(SettingError, match="question and context, not 1"):
        task.predict("who")


def test_a_gpt_cannot_point_at_answers(text) -> None:
    tokenizer = text.letters(("<|endoftext|>",))
    with pytest.raises(SettingError, match="looks both ways"):
        Answering("gpt-nano", text.gpt(tokenizer), tokenizer)


def test_to_files_and_back(task, tmp_path) -> None:
    task.threshold = 0.25
    save_description(task, tmp_path)
    save_weights(task.state_dict(), tmp_path)
    again = load(tmp_path)
    assert (again.threshold, again.length) == (0.25, 40)
    assert again.predict("who", CONTEXT) == task.predict("who", CONTEXT)
