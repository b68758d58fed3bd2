from __future__ import annotations

import math
import os
from pathlib import Path

import pytest

from vitrail.data.text.corpus import open_corpus
from vitrail.proofs.bigram import bigram_loss
from vitrail.proofs.data import text


def test_by_hand() -> None:
    """After an a came b twice and a once, of 3 characters; after a b came a once; after a c came nothing yet."""
    surprise = [math.log(6 / 3), math.log(4 / 2), math.log(6 / 1), math.log(3 / 1)]  # ab, ba, ac, ca
    assert bigram_loss("abaab", "abaca") == pytest.approx(sum(surprise) / 4)


def test_what_was_never_seen_is_unlikely_and_not_impossible() -> None:
    assert bigram_loss("abab" * 100, "abab") < 0.1 < bigram_loss("abab" * 100, "aabb") < 10


@pytest.mark.skipif("VITRAIL_DATA" not in os.environ, reason="the real text is looked for in $VITRAIL_DATA")
def test_on_shakespeare() -> None:
    """2.484 nats is what others measured on its last tenth; the last twentieth differs a little."""
    parts = open_corpus(text("tinyshakespeare", Path(os.environ["VITRAIL_DATA"])) / "input.txt").splits
    train, rest = parts["train"][0], parts["validation"][0] + parts["test"][0]
    assert bigram_loss(train, rest) == pytest.approx(2.484, abs=0.005)
    assert bigram_loss(train, parts["test"][0]) == pytest.approx(2.484, abs=0.03)
