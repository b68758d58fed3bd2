"""A small GPT learns to write like Shakespeare, letter by letter."""

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
    """Nats a character of the last twentieth of the text, after training on the first nine tenths.

    The network and its training are nanoGPT's for a CPU: 4 layers of 128, 64 characters at once, 2,000 steps of 12.
    """
    proof = Proof("gpt", "nats a character of Shakespeare", measured=None, baseline=None, bar=2.0, better="lower")
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
            objective="next-token",
            model="gpt-nano",
            out=out,
            overwrite=True,
            steps=2000,
            batch_size=12,
            learning_rate=1e-3,
            seed=seed,
        )
    )
    seconds = round(time.perf_counter() - began, 1)
    return replace(proof, measured=figures["loss"], baseline=baseline, seconds=seconds)
