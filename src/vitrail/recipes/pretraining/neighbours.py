"""What features know of the classes that their model is not told: measured while it learns, where the data has labels.

A loss without labels says little of what the features are good for. This figure is only shown: no weights are chosen
by it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from vitrail.data.loader import EvaluationBatches, load_batches
from vitrail.data.sample import Label
from vitrail.data.source import Source, Subset
from vitrail.metrics.probe import knn_accuracy
from vitrail.objectives import ImageObjective, Objective
from vitrail.train import distributed
from vitrail.train.precision import products_in

MOST = 2000  # images; more would tell little more


def labelled_images(source: Source, classes: int, learner: ImageObjective) -> EvaluationBatches | None:
    """At most `MOST` images, evenly spread, each once, where each has one label and there are classes; else None."""
    numbers = np.linspace(0, len(source) - 1, min(MOST, len(source))).round().astype(int).tolist()
    if classes < 2 or not all(isinstance(source.label(number), Label) for number in numbers):
        return None
    here = distributed.rank(), distributed.world()
    return EvaluationBatches(Subset(source, numbers), classes, learner.preprocess, 64, *here)


@torch.no_grad()
def neighbours(
    learner: Objective, batches: EvaluationBatches | None, device: torch.device, dtype: torch.dtype
) -> dict[str, float]:
    """``knn``: the accuracy of a vote of the nearest of the same images (`metrics.probe.knn_accuracy`).

    Every process must call, and gets the figure of all images; nothing without batches.
    """
    if batches is None:
        return {}
    training = learner.training
    learner.eval()
    mine: list[Any] = []
    for batch, numbers in load_batches(batches, 0, len(batches), 0):
        if numbers:
            with products_in(dtype, device):
                pooled = learner(batch.images.to(device)).pooled
            mine += zip(numbers, pooled.float().cpu(), batch.labels.argmax(dim=1), strict=True)
    learner.train(training)
    everything = sorted((row for rows in distributed.gather(mine) for row in rows), key=lambda row: row[0])
    features, labels = (torch.stack(values) for values in list(zip(*everything, strict=True))[1:])
    return {"knn": knn_accuracy(features, labels, batches.classes)}
