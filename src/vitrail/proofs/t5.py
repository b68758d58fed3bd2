"""A small T5 fills the gaps of a text that it has not seen, letter by letter."""

from __future__ import annotations

from pathlib import Path

from vitrail.proofs.proof import Proof
from vitrail.proofs.shakespeare import pretrain_and_compare
from vitrail.recipes.pretraining.settings import Pretrain


def prove(data: Path | None, out: Path, seed: int = 0) -> Proof:
    """Nats a letter that was taken out of the last twentieth of Shakespeare, after training on the first nine tenths.

    Half of the letters are taken out, in pieces of 8 on average, so that a short training sees many gaps. The baseline
    counts which letter follows which, and is told where the gaps end.
    """
    proof = Proof("t5", "nats a letter that was taken out", measured=None, baseline=None, bar=2.35, better="lower")
    settings = Pretrain(
        objective="span",
        options=("mask_ratio=0.5", "span=8"),
        model="t5-nano",
        out=out,
        steps=2500,
        batch_size=16,
        learning_rate=3e-3,
        seed=seed,
    )
    return pretrain_and_compare(proof, data, settings, figure="text")
