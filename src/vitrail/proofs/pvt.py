"""A small pyramid vision transformer (v2) learns photographs from random weights: CIFAR-10."""

from __future__ import annotations

from pathlib import Path

from vitrail.proofs.classifier import from_scratch, train_and_compare
from vitrail.proofs.data import cifar10
from vitrail.proofs.proof import Proof


def prove(data: Path | None, out: Path, seed: int = 0) -> Proof:
    """Accuracy on CIFAR-10's test images at twice their size; three stages of 16x16, 8x8 and 4x4 places."""
    return train_and_compare(
        Proof("pvt", "accuracy on CIFAR-10's test images", measured=None, baseline=None, bar=0.60),
        lambda: cifar10(data),
        from_scratch(
            out,
            model="pvt-v2-b0",
            config=(
                "depths=2,2,2",
                "widths=48,96,192",
                "heads=2,4,8",
                "mlp_ratios=4,4,4",
                "reductions=4,2,1",
            ),
            image_size=64,
            epochs=12,
            seed=seed,
        ),
    )
