"""DINO: a small network learns from its own slower copy what photographs show: CIFAR-10 without its labels."""

from __future__ import annotations

from pathlib import Path

from vitrail.proofs.probed import learn_and_probe
from vitrail.proofs.proof import Proof
from vitrail.recipes.pretraining.settings import Pretrain


def prove(data: Path | None, out: Path, seed: int = 0) -> Proof:
    """Accuracy of a linear classifier on the teacher's features, and on those of the same network before training.

    Six passes through 9,000 images want answers that are decided from the start: few of them, of short vectors, and a
    cool teacher that follows fast.
    """
    settings = Pretrain(
        objective="dino",
        out=out,
        overwrite=True,
        model="vit-micro",
        config=("depth=3",),
        options=(
            "outputs=256",
            "bottleneck=32",
            "batch_norm=true",
            "local_views=2",
            "split=0.25",
            "momentum=0.98",
            "teacher_temperature=0.03",
            "first_temperature=0.03",
        ),
        steps=900,
        batch_size=64,
        learning_rate=1.5e-3,
        seed=seed,
    )
    return learn_and_probe("dino", data, settings)
