"""A small Swin transformer, its windows shifted from block to block, learns photographs: CIFAR-10."""

from __future__ import annotations

from pathlib import Path

from vitrail.proofs.classifier import from_scratch, train_and_compare
from vitrail.proofs.data import cifar10
from vitrail.proofs.proof import Proof


def prove(data: Path | None, out: Path, seed: int = 0) -> Proof:
    """Accuracy on CIFAR-10's test images; three stages of 16x16, 8x8 and 4x4 places, windows of 4x4."""
    return train_and_compare(
        Proof("swin", "accuracy on CIFAR-10's test images", measured=None, baseline=None, bar=0.50),
        lambda: cifar10(data),
        from_scratch(
            out,
            model="swin-t",
            config=("width=48", "depths=2,2,2", "heads=2,4,8", "window=4", "patch_size=2"),
            image_size=32,
            epochs=25,
            seed=seed,
        ),
    )
