"""The proof of the 2017 Transformer: what it reads, what it counts, and that it does not pass by itself."""

import itertools

import torch
from PIL import Image

from vitrail import models
from vitrail.data.text.characters import learn
from vitrail.objectives.span import Span
from vitrail.proofs import transformer
from vitrail.proofs.transformer import as_rows, begun, cross_attention, draw_attention, prove, share_right


def learner_of(words):
    tokenizer = learn(words, 200, Span.special)
    torch.manual_seed(0)
    shape = {"width": 16, "depth": 1, "decoder_depth": 1, "heads": 2, "mlp": 16, "context": 16}
    return Span(
        "transformer-nano", models.create_text("transformer-nano", vocabulary=len(tokenizer), **shape), tokenizer
    )


def test_rows_have_letters_an_end_and_what_fills_up():
    learner = learner_of(["abc"])
    rows = as_rows(learner, ["cab", "b"])
    first = learner.tokenizer.encode("a")[0]
    assert rows.tolist() == [
        [first + 2, first, first + 1, learner.end] + [learner.pad] * 12,
        [first + 1, learner.end] + [learner.pad] * 14,
    ]
    assert begun(learner, rows)[0, :5].tolist() == [learner.pad, first + 2, first, first + 1, learner.end]


def test_only_words_that_are_right_to_the_last_letter_count(monkeypatch):
    learner = learner_of(["abcd"])
    answers = {"abc": "cba", "abd": "dbb", "dc": "cd", "ba": "abb"}
    words = list(answers)

    def answered(writer, first, end, most):
        rows = [[*learner.tokenizer.encode(answers[word]), end] for word in words]
        return torch.tensor([row + [end] * (4 - len(row)) for row in rows])

    monkeypatch.setattr(transformer, "token_by_token", answered)
    assert share_right(learner, words, words) == 0.5


def test_without_training_it_fails(monkeypatch, tmp_path):
    text = tmp_path / "text" / "tinyshakespeare"
    text.mkdir(parents=True)
    letters = "abcdefgh"
    words = ["abcdefgh" + "".join(word) for word in itertools.product(letters, repeat=4)]
    (text / "input.txt").write_text(" ".join(words))
    monkeypatch.setattr(transformer, "STEPS", 2)
    monkeypatch.setattr(transformer, "UNSEEN", 100)
    proof = prove(tmp_path, tmp_path / "out")
    assert proof.passed is False
    assert proof.measured < 0.05


def test_what_it_looks_at_is_drawn(tmp_path):
    learner = learner_of(["abcdef"]).eval()
    looks = cross_attention(learner, "abcd")
    assert looks.shape == (2, 5, 5)
    assert torch.allclose(looks.sum(dim=-1), torch.ones(2, 5))
    draw_attention(learner, ["abcd", "fed"], tmp_path / "attention.png")
    with Image.open(tmp_path / "attention.png") as picture:
        assert picture.width > picture.height
