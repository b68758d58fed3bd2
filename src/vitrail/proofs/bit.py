"""A small BiT, a ResNet-v2 with group norms and standardised weights, learns photographs: CIFAR-10."""

from __future__ import annotations

from pathlib import Path

from vitrail.proofs.classifier import from_scratch, train_and_compare
from vitrail.proofs.data import cifar10
from vitrail.proofs.proof import Proof


def prove(data: Path | None, out: Path, seed: int = 0) -> Proof:
    """Accuracy on CIFAR-10's test images at twice their size."""
    return train_and_compare(
        Proof("bit", "accuracy on CIFAR-10's test images", measured=None, baseline=None, bar=0.60),
        lambda: cifar10(data),
        from_scratch(
            out, model="bit-r50x1", config=("depths=1,1,1", "width=32", "groups=8"), image_size=64, epochs=10, seed=seed
        ),
    )
