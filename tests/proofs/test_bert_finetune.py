"""The proof of fine-tuning: what is read beforehand, and the baseline; both on sentences made up for the purpose."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vitrail.data.text.corpus import open_corpus
from vitrail.data.text.labelled import Columns, open_labelled
from vitrail.proofs import bert_finetune
from vitrail.proofs.bert_finetune import bag_of_words, majority, write_corpus

pytest.importorskip("sklearn", reason="the regression comes with scikit-learn")


@pytest.fixture
def reviews(tmp_path: Path) -> Path:
    """Sentences of random words, of which one of eight good or bad ones tells the class."""
    folder, rng = tmp_path / "text" / "rt-polarity", np.random.default_rng(0)
    folder.mkdir(parents=True)
    for label, words in (("pos", "good great fine brilliant"), ("neg", "bad dull poor silly")):
        lines = [
            f"film{' '.join(f'w{n}' for n in rng.integers(50, size=6))} {rng.choice(words.split())} , {label}less{n}"
            for n in range(150)
        ]
        (folder / f"rt-polarity.{label}").write_text("\n".join(lines))
    (tmp_path / "text" / "wikitext-2").mkdir()
    (tmp_path / "text" / "wikitext-2" / "valid.txt").write_text(" = Heading = \n Some articles .\n" * 40)
    return folder


def test_the_regression_learns_what_words_tell(reviews: Path) -> None:
    data = open_labelled(reviews, Columns(), pairs=False)
    assert bag_of_words(data) >= 0.9
    rng = np.random.default_rng(1)
    mixed = {
        split: tuple(replace(each, label=rng.choice(["neg", "pos"])) for each in of)
        for split, of in data.splits.items()
    }
    assert bag_of_words(replace(data, splits=mixed)) < 0.75


def test_the_commonest_label_of_training_is_said_of_everything(reviews: Path) -> None:
    data = open_labelled(reviews, Columns(), pairs=False)
    train = [replace(each, label=int(number > 0)) for number, each in enumerate(data.splits["train"])]
    test = [replace(each, label=int(number < 3)) for number, each in enumerate(data.splits["test"])]
    splits = {**data.splits, "train": tuple(train), "test": tuple(test)}
    assert majority(replace(data, splits=splits)) == 3 / len(test)


def test_no_held_out_sentence_is_read_beforehand(reviews: Path, tmp_path: Path) -> None:
    data = open_labelled(reviews, Columns(), pairs=False)
    corpus = open_corpus(write_corpus(data, reviews.parent / "wikitext-2", tmp_path / "corpus"))
    read = "\n".join(corpus.splits["train"])
    assert all(each.text in read for each in data.splits["train"])
    assert "Some articles" in read
    assert not any(each.text in read for split in ("validation", "test") for each in data.splits[split])
    assert corpus.splits["validation"] == tuple(each.text for each in data.splits["validation"])
    assert "neg" not in corpus.splits["train"][0].split()  # no label went along


def test_what_it_runs_goes_together(reviews: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small: dict[str, Any] = {
        "device": "cpu",
        "precision": "float32",
        "config": ("width=16", "depth=1", "heads=2", "mlp=32"),
    }
    pretrain, train = bert_finetune.pretrain, bert_finetune.train
    monkeypatch.setattr(
        bert_finetune, "pretrain", lambda settings: pretrain(replace(settings, steps=2, vocabulary=300, **small))
    )
    monkeypatch.setattr(
        bert_finetune, "train", lambda settings: train(replace(settings, epochs=1, device="cpu", precision="float32"))
    )
    proof = bert_finetune.prove(tmp_path, tmp_path / "out", seed=1)
    assert proof.baseline == pytest.approx(0.5, abs=0.02)
    assert proof.measured is not None
    assert 0 <= proof.measured <= 1
    assert (tmp_path / "out" / "reviews" / "model.safetensors").is_file()
