"""LeNet-5 reads handwritten digits, as in the paper of 1998: MNIST."""

from __future__ import annotations

from pathlib import Path

from vitrail.proofs.classifier import train_and_compare
from vitrail.proofs.data import mnist
from vitrail.proofs.proof import Proof
from vitrail.recipes.train import Train


def prove(data: Path | None, out: Path) -> Proof:
    """Accuracy on the 10,000 test images; of the 60,000 others a tenth chooses the best epoch."""
    return train_and_compare(
        Proof("lenet", "accuracy on MNIST's test images", measured=None, baseline=None, bar=0.990),
        lambda: mnist(data),
        Train(
            out=out,
            overwrite=True,
            model="lenet-5",
            epochs=12,
            batch_size=64,
            learning_rate=2e-3,
            augment="light",
            precision="float32",
            seed=0,
        ),
    )
