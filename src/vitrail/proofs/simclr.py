"""SimCLR: a small network learns of photographs what pixels do not tell, from nothing but pairs of views: CIFAR-10."""

from __future__ import annotations

from pathlib import Path

from vitrail.proofs.probed import learn_and_probe
from vitrail.proofs.proof import Proof
from vitrail.recipes.pretraining.settings import Pretrain


def prove(data: Path | None, out: Path, seed: int = 0) -> Proof:
    """Accuracy of a linear classifier on the features of the network, and on those of the same before training.

    Small batches, a low temperature and crops of at least a fifth of the image make the most of a few minutes.
    """
    settings = Pretrain(
        objective="simclr",
        out=out,
        overwrite=True,
        model="vit-micro",
        config=("width=96", "depth=4", "heads=3", "mlp=192"),
        options=("temperature=0.1", "smallest_view=0.2"),
        steps=900,
        batch_size=64,
        learning_rate=1.5e-3,
        seed=seed,
    )
    return learn_and_probe("simclr", data, settings)
