"""A small T5 fills the gaps of a text that it has not seen, letter by letter."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

from vitrail.data.text.corpus import open_corpus
from vitrail.errors import SettingError
from vitrail.proofs.bigram import bigram_loss
from vitrail.proofs.data import text
from vitrail.proofs.proof import Proof
from vitrail.recipes.pretrain import Pretrain, pretrain


def prove(data: Path | None, out: Path, seed: int = 0) -> Proof:
    """Nats a letter that was taken out of the last twentieth of Shakespeare, after training on the first nine tenths.

    Half of the letters are taken out, in pieces of 8 on average, so that a short training sees many gaps. The baseline
    counts which letter follows which, and is told where the gaps end.
    """
    proof = Proof("t5", "nats a letter that was taken out", measured=None, baseline=None, bar=2.35, better="lower")
    try:
        file = text("tinyshakespeare", data) / "input.txt"
    except SettingError as error:
        return replace(proof, reason=str(error))
    corpus = open_corpus(file)
    baseline = bigram_loss(corpus.splits["train"][0], corpus.splits["test"][0])
    began = time.perf_counter()
    figures = pretrain(
        Pretrain(
            data=str(file),
            objective="span",
            options=("mask_ratio=0.5", "span=8"),
            model="t5-nano",
            out=out,
            overwrite=True,
            steps=2500,
            batch_size=16,
            learning_rate=3e-3,
            seed=seed,
        )
    )
    return replace(proof, measured=figures["text"], baseline=baseline, seconds=round(time.perf_counter() - began, 1))
