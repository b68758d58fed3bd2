"""What a pre-training run is made of, whatever it learns from."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch

from vitrail.objectives import Objective
from vitrail.recipes.pretraining.settings import Pretrain
from vitrail.recipes.resume import as_json


@dataclass(frozen=True)
class Pretraining:
    """A run as it is about to begin, or to go on.

    Attributes:
        learner: the objective with the model in it, with the weights that training starts from.
        load: ``load(start, stop)`` iterates over training batches.
        steps, steps_per_epoch, batch_size: how long, and in what portions.
        validation, test: batches of what was held back; the first is measured now and then, the other at the end.
        split: the name of the second.
        flops: floating-point operations of a batch's forward pass, about.
        fingerprint: a hash of the data.
        reason: what is trained on what, in a sentence.
        labelled: images of what validates with their classes, by which features are judged; None without any.
        choice: what was chosen where settings left it open.
        next_command: what one does with the run; ``{run}`` stands for its folder.
    """

    learner: Objective
    load: Callable[[int, int], Iterator[Any]]
    steps: int
    steps_per_epoch: int
    batch_size: int
    validation: Any
    test: Any
    split: str
    flops: float
    fingerprint: str
    reason: str
    labelled: Any = None
    choice: dict[str, Any] = field(default_factory=dict)
    next_command: str = "vitrail train DATA --weights {run}"

    def record(self, settings: Pretrain, device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
        """What `run.json` tells of it."""
        return {
            "recipe": "pretrain",
            "settings": as_json(settings),
            "choice": {"model": self.learner.model, "steps": self.steps, "batch_size": self.batch_size, **self.choice},
            "device": str(device),
            "precision": str(dtype).removeprefix("torch."),
            "data": {"fingerprint": self.fingerprint},
        }


def steps_for(settings: Pretrain, steps_per_epoch: int, epochs: int) -> int:
    """All steps: as many as were asked for, else those of the epochs."""
    if settings.steps is not None:
        return settings.steps
    return (settings.epochs or epochs) * steps_per_epoch
