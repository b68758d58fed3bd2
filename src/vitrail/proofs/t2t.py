"""A small T2T-ViT, which makes its tokens of overlapping ones in three steps, learns photographs: CIFAR-10."""

from __future__ import annotations

from pathlib import Path

from vitrail.proofs.classifier import from_scratch, train_and_compare
from vitrail.proofs.data import cifar10
from vitrail.proofs.proof import Proof


def prove(data: Path | None, out: Path, seed: int = 0) -> Proof:
    """Accuracy on CIFAR-10's test images at twice their size, from 16x16 tokens over 8x8 to 4x4."""
    return train_and_compare(
        Proof("t2t", "accuracy on CIFAR-10's test images", measured=None, baseline=None, bar=0.45),
        lambda: cifar10(data),
        from_scratch(
            out,
            model="t2t-7",
            config=("width=128", "depth=5", "heads=4", "mlp=256"),
            image_size=64,
            epochs=14,
            seed=seed,
        ),
    )
