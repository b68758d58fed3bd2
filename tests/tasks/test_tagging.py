"""A tag for each word: alignment of words and tokens, the loss by hand, learning, the way to JSON and back."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from vitrail.data.text import bytepair
from vitrail.data.text.examples import TaggedWords
from vitrail.data.text.rows import IGNORED
from vitrail.errors import DataError
from vitrail.tasks.tagging import Tagging
from vitrail.weights.save import save_description, save_weights
from vitrail.weights.saved import load

TAGS = ("B-PER", "I-PER", "O")
SENTENCES = [
    TaggedWords("s0", ("ada", "lovelace", "wrote", "it"), ("B-PER", "I-PER", "O", "O")),
    TaggedWords("s1", ("it", "was", "ada"), ("O", "O", "B-PER")),
]


@pytest.fixture
def task(text) -> Tagging:
    tokenizer = text.letters()
    return Tagging("bert-base", text.bert(tokenizer), tokenizer, TAGS).eval()


def test_the_first_token_of_a_word_has_its_tag(task) -> None:
    rows = task.rows(SENTENCES)
    row = rows.rows[1]
    spelled = [task.tokenizer.token(number) for number in row.ids.tolist()]
    assert spelled == ["[CLS]", *"it was ada", "[SEP]"]
    assert [spelled[n] for n in np.flatnonzero(row.labels != IGNORED)] == ["i", "w", "a"]
    assert row.labels[row.labels != IGNORED].tolist() == [2, 2, 0]
    assert row.places[row.places >= 0].tolist() == [0, 1, 2]
    assert rows.per_token


def test_every_word_of_byte_pairs_has_its_space(text) -> None:
    tokenizer = bytepair.learn(["ada lovelace wrote it it was ada"] * 5, 300, ("<|endoftext|>",))
    task = Tagging("gpt-nano", text.gpt(tokenizer, context=64), tokenizer, TAGS)
    row = task.rows(SENTENCES).rows[0]
    words = [tokenizer.encode(f" {word}") for word in SENTENCES[0].words]
    assert row.ids.tolist() == [*itertools.chain(*words), tokenizer.end]
    assert np.flatnonzero(row.places >= 0).tolist() == np.cumsum([0, *map(len, words[:-1])]).tolist()


def test_words_behind_the_end_are_cut_and_taken_for_nothing(text) -> None:
    tokenizer = text.letters()
    task = Tagging("bert-base", text.bert(tokenizer), tokenizer, TAGS, length=9)
    rows = task.rows(SENTENCES)
    assert rows.cut == 2
    found = task.tags(SENTENCES, rows, text.outputs(task, rows))
    assert [len(sentence) for sentence in found] == [4, 3]
    assert found[0][2:] == [("O", 0.0), ("O", 0.0)]
    assert found[0][1][1] > 0


def test_the_loss_is_the_mean_of_each_sentence(task) -> None:
    batch = task.rows(SENTENCES).batch(range(2))
    logits = task(batch.ids, batch.segments, batch.mask)
    each = [F.cross_entropy(of, labels, ignore_index=IGNORED) for of, labels in zip(logits, batch.labels, strict=True)]
    assert task.loss(batch)["loss"].item() == pytest.approx(torch.stack(each).mean().item())
    parts = [task.loss(part)["loss"].item() for part in batch.split(2)]
    assert np.mean(parts) == pytest.approx(task.loss(batch)["loss"].item(), rel=1e-5)


def test_a_sentence_without_a_token_costs_nothing(task) -> None:
    batch = task.rows(SENTENCES).batch([0])
    nothing = torch.full_like(batch.labels, IGNORED)
    object.__setattr__(batch, "labels", nothing)
    assert task.loss(batch)["loss"].item() == 0


@pytest.mark.parametrize("model", ["bert", "gpt"])
def test_names_are_found(text, model: str) -> None:
    tokenizer = text.letters(("<|endoftext|>",) if model == "gpt" else text.special)
    name = "bert-base" if model == "bert" else "gpt-nano"
    of_gpt = [TaggedWords("s", ("ada", "saw", "him"), ("B-PER", "O", "O"))]  # it sees the first letter of a word only
    sentences = SENTENCES if model == "bert" else of_gpt
    task = Tagging(name, getattr(text, model)(tokenizer), tokenizer, TAGS)
    rows = task.rows(sentences)
    text.learn(task, rows, steps=150)
    figures = task.figures(sentences, rows, text.outputs(task, rows))
    assert figures["f1"] == figures["accuracy"] == 1.0
    assert figures["texts"] == len(sentences)
    if model == "bert":
        assert figures["per_class"] == [{"label": "PER", "precision": 1.0, "recall": 1.0, "f1": 1.0, "entities": 2}]
        said = task.predict("ada lovelace wrote it")
        assert said["entities"] == [{"text": "ada lovelace", "start": 0, "stop": 2, "kind": "PER"}]
        assert [of["tag"] for of in said["words"]] == ["B-PER", "I-PER", "O", "O"]


def test_plain_tags_are_counted_as_words(text) -> None:
    tokenizer = text.letters()
    task = Tagging("bert-base", text.bert(tokenizer), tokenizer, ("N", "V"))
    sentences = [TaggedWords("s", ("ada", "saw"), ("N", "V"))]
    rows = task.rows(sentences)
    figures = task.figures(sentences, rows, text.outputs(task, rows))
    assert figures["f1"] == figures["accuracy"] == 0.5
    assert {row["label"]: row["words"] for row in figures["per_class"]} == {"N": 1, "V": 1}


def test_a_tag_that_the_model_does_not_know(task) -> None:
    with pytest.raises(DataError, match="does not know the tag 'B-LOC' of s9; it knows: B-PER, I-PER, O"):
        task.rows([TaggedWords("s9", ("a",), ("B-LOC",))])


def test_to_files_and_back(task, tmp_path) -> None:
    save_description(task, tmp_path)
    save_weights(task.state_dict(), tmp_path)
    again = load(tmp_path)
    assert (again.classes, again.length, again.marked) == (TAGS, 32, True)
    assert again.predict("ada was it") == task.predict("ada was it")
