"""One class a text, or a pair: inputs, loss by hand, scores, calibration, learning, the way to JSON and back."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from vitrail.data.text.examples import LabelledText
from vitrail.data.text.rows import Rows
from vitrail.errors import DataError, SettingError
from vitrail.tasks import TASKS
from vitrail.tasks.text_classification import TextClassification, TextPair
from vitrail.weights.save import save_description, save_weights
from vitrail.weights.saved import load

CLASSES = ("bad", "good")
TEXTS = [LabelledText(f"t{n}", ("a good film" if n % 2 else "no film"), CLASSES[n % 2]) for n in range(6)]


@pytest.fixture
def task(text) -> TextClassification:
    tokenizer = text.letters()
    return TextClassification("bert-base", text.bert(tokenizer), tokenizer, CLASSES).eval()


def test_texts_become_rows(task) -> None:
    rows = task.rows(TEXTS[:2])
    spelled = ["".join(map(task.tokenizer.token, row.ids.tolist())) for row in rows.rows]
    assert spelled == ["[CLS]no film[SEP]", "[CLS]a good film[SEP]"]
    assert [int(row.labels) for row in rows.rows] == [0, 1]
    assert rows.cut == 0
    assert task.rows([LabelledText("x", "a")]).rows[0].labels is None


def test_long_texts_are_cut_and_counted(text) -> None:
    tokenizer = text.letters()
    task = TextClassification("bert-base", text.bert(tokenizer), tokenizer, CLASSES, length=10)
    rows = task.rows(TEXTS)
    assert {len(row.ids) for row in rows.rows} == {9, 10}
    assert rows.cut == 3


def test_the_loss_is_cross_entropy(task) -> None:
    batch = task.rows(TEXTS).batch(range(6))
    logits = task(batch.ids, batch.segments, batch.mask)
    assert task.loss(batch)["loss"].item() == pytest.approx(F.cross_entropy(logits, batch.labels).item())
    task.label_smoothing = 0.2
    smooth = 0.9 * F.one_hot(batch.labels, 2) + 0.1 * F.one_hot(1 - batch.labels, 2)
    assert task.loss(batch)["loss"].item() == pytest.approx(F.cross_entropy(logits, smooth).item())


def test_classes_may_count_differently(text) -> None:
    tokenizer = text.letters()
    task = TextClassification(
        "bert-base", text.bert(tokenizer), tokenizer, CLASSES, class_weights=np.array([3.0, 1.0], np.float32)
    ).eval()
    batch = task.rows(TEXTS[:3]).batch(range(3))
    each = F.cross_entropy(task(batch.ids, batch.segments, batch.mask), batch.labels, reduction="none")
    weights = torch.tensor([3.0, 1.0, 3.0])
    assert task.loss(batch)["loss"].item() == pytest.approx(((each * weights).sum() / weights.sum()).item())


def test_the_loss_of_a_batch_is_the_mean_of_its_parts(task) -> None:
    batch = task.rows(TEXTS).batch(range(6))
    parts = [task.loss(part)["loss"].item() * len(part) for part in batch.split(4)]
    assert sum(parts) / 6 == pytest.approx(task.loss(batch)["loss"].item())


def test_what_fills_rows_up_changes_nothing(task, text) -> None:
    rows = task.rows(TEXTS[:2])
    together = text.outputs(task, rows)
    for number in range(2):
        (alone,) = text.outputs(task, Rows([rows.rows[number]], 0, rows.pad))
        np.testing.assert_allclose(together[number], alone, atol=1e-6)


@pytest.mark.parametrize("model", ["bert", "gpt"])
def test_two_kinds_of_texts_are_told_apart(text, model: str) -> None:
    tokenizer = text.letters(("<|endoftext|>",) if model == "gpt" else text.special)
    backbone = getattr(text, model)(tokenizer)
    task = TextClassification("bert-base" if model == "bert" else "gpt-nano", backbone, tokenizer, CLASSES)
    rows = task.rows(TEXTS)
    text.learn(task, rows)
    figures = task.figures(TEXTS, rows, text.outputs(task, rows))
    assert figures["top1"] == 1.0
    assert figures["texts"] == 6
    assert [row["texts"] for row in figures["per_class"]] == [3, 3]
    said = task.predict("a good film")
    assert said["text"] == "a good film"
    assert said["predictions"][0]["label"] == "good"
    assert sum(of["score"] for of in said["predictions"]) == pytest.approx(1, abs=1e-5)
    assert len(task.predict("no film", top=1)["predictions"]) == 1


def test_the_temperature_makes_scores_as_sure_as_they_are_right(task) -> None:
    texts = [
        LabelledText(f"t{n}", "a", CLASSES[int(n % 4 == 0)]) for n in range(400)
    ]  # the first answer is right in 3/4
    outputs = [np.array([8.0, 0.0], np.float32)] * 400
    rows = task.rows(texts)
    before = task.figures(texts, rows, outputs)
    task.calibrate(texts, rows, outputs)
    after = task.figures(texts, rows, outputs)
    assert task.temperature == pytest.approx(8 / np.log(3), rel=1e-3)
    assert before["ece"] == after["ece"] == pytest.approx(0.25, abs=1e-3)
    assert after["ece_calibrated"] == pytest.approx(0, abs=1e-3)
    score = task.answers(texts[:1], task.rows(texts[:1]), outputs[:1])[0]["predictions"][0]["score"]
    assert score == pytest.approx(0.75, abs=1e-3)


def test_pairs(text) -> None:
    tokenizer = text.letters()
    task = TextPair("bert-base", text.bert(tokenizer), tokenizer, ("no", "yes"))
    pairs = [LabelledText(f"p{n}", "abc"[n % 3], "yes" if n % 3 > n // 3 else "no", "abc"[n // 3]) for n in range(9)]
    rows = task.rows(pairs)
    assert "".join(map(tokenizer.token, rows.rows[1].ids.tolist())) == "[CLS]b[SEP]a[SEP]"
    assert rows.rows[1].segments.tolist() == [0, 0, 0, 1, 1]
    text.learn(task, rows, steps=200)
    assert task.figures(pairs, rows, text.outputs(task, rows))["top1"] == 1.0
    assert task.predict("a", "a")["second"] == "a"
    with pytest.raises(SettingError, match="text and second, not 1"):
        task.predict("a")


def test_a_class_that_the_model_does_not_know(task) -> None:
    with pytest.raises(DataError, match="does not know the class 'odd' of t9; it knows: bad, good"):
        task.rows([LabelledText("t9", "a", "odd")])


def test_settings_that_cannot_be(text) -> None:
    tokenizer = text.letters()
    for options, message in (
        ({"length": 33}, "more than the context"),
        ({"length": 2}, "no room"),
        ({"temperature": 0.0}, "temperature must be above 0"),
    ):
        with pytest.raises(SettingError, match=message):
            TextClassification("bert-base", text.bert(tokenizer), tokenizer, CLASSES, **options)


@pytest.mark.parametrize("kind", [TextClassification, TextPair])
def test_to_files_and_back(text, tmp_path, kind) -> None:
    tokenizer = text.letters()
    task = kind("bert-base", text.bert(tokenizer), tokenizer, CLASSES, length=20, temperature=1.5).eval()
    save_description(task, tmp_path)
    save_weights(task.state_dict(), tmp_path)
    again = load(tmp_path)
    assert type(again) is kind is TASKS[json.loads((tmp_path / "model.json").read_text())["task"]]
    assert (again.length, again.classes, again.temperature) == (20, CLASSES, 1.5)
    pieces = ("a film", "b")[: len(kind.pieces)]
    assert again.predict(*pieces) == task.predict(*pieces)
