"""A small GPT learns to write like Shakespeare, letter by letter."""

from __future__ import annotations

from pathlib import Path

from vitrail.proofs.proof import Proof
from vitrail.proofs.shakespeare import pretrain_and_compare
from vitrail.recipes.pretraining.settings import Pretrain


def prove(data: Path | None, out: Path, seed: int = 0) -> Proof:
    """Nats a character of the last twentieth of the text, after training on the first nine tenths.

    The network and its training are nanoGPT's for a CPU: 4 layers of 128, 64 characters at once, 2,000 steps of 12.
    """
    proof = Proof("gpt", "nats a character of Shakespeare", measured=None, baseline=None, bar=2.0, better="lower")
    settings = Pretrain(
        objective="next-token",
        model="gpt-nano",
        out=out,
        steps=2000,
        batch_size=12,
        learning_rate=1e-3,
        seed=seed,
    )
    return pretrain_and_compare(proof, data, settings)
