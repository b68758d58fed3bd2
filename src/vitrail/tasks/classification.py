"""Classification: one class an image, or any number of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from vitrail import models
from vitrail.data.preprocess import Preprocess
from vitrail.data.sample import Batch
from vitrail.errors import SettingError
from vitrail.heads import CLASSIFIERS
from vitrail.nn.backbone import Backbone
from vitrail.tasks.classifier import Classifier, Scored
from vitrail.tasks.task import Task

__all__ = ["Classification", "Scored", "class_weights"]


class Classification(Classifier, Task):
    """Logits ``(B, K)`` from the classifier that the backbone's paper puts on it, mostly a linear one.

    Args:
        model: the backbone's name in the table of models.
        backbone: the backbone.
        classes: the K class names, in the order of the outputs.
        preprocess: how an image becomes the backbone's input.
        many_labels: whether an image may have any number of classes (sigmoid) instead of exactly one (softmax).
        label_smoothing: share of each target that is spread over all classes (Szegedy et al. 2016).
        class_weights: ``(K,)``, how much the loss of each class counts.
        temperature: by which logits are divided before they become scores (Guo et al. 2017).

    Raises :class:`SettingError` for a smoothing or a temperature that makes no sense.
    """

    name: ClassVar[str] = "classification"

    def __init__(
        self,
        model: str,
        backbone: Backbone,
        classes: Sequence[str],
        preprocess: Preprocess,
        *,
        many_labels: bool = False,
        label_smoothing: float = 0.0,
        class_weights: NDArray[np.float32] | None = None,
        temperature: float = 1.0,
    ) -> None:
        if not 0 <= label_smoothing < 1:
            raise SettingError(f"label smoothing must be at least 0 and below 1, not {label_smoothing}.")
        if not 0 < temperature < float("inf"):
            raise SettingError(f"the temperature must be above 0, not {temperature}.")
        super().__init__(model, backbone, CLASSIFIERS[backbone.classifier](backbone, len(classes)), preprocess)
        self.classes = tuple(classes)
        self.many_labels = many_labels
        self.label_smoothing = label_smoothing
        self.temperature = temperature
        self.score = "map" if many_labels else "top1"
        weights = None if class_weights is None else torch.from_numpy(class_weights)
        self.class_weights: Tensor | None
        self.register_buffer("class_weights", weights, persistent=False)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy with one label an image, the mean of K binary cross-entropies with many."""
        assert batch.labels is not None, "classification needs labels"
        outputs: list[tuple[Tensor, float]] = self.head.outputs(self.features(batch.images))  # type: ignore[operator]
        losses = [weight * self.criterion(logits.float(), batch.labels) for logits, weight in outputs]
        return {"loss": torch.stack(losses).sum()}

    def criterion(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The loss of logits ``(B, K)`` float32 against labels ``(B, K)`` in 0 … 1; a scalar."""
        if not self.many_labels:
            return F.cross_entropy(logits, labels, self.class_weights, label_smoothing=self.label_smoothing)
        targets = labels * (1 - self.label_smoothing) + 0.5 * self.label_smoothing
        return F.binary_cross_entropy_with_logits(logits, targets, self.class_weights)

    def to_json(self) -> dict[str, Any]:
        return {
            "task": self.name,
            "model": self.model,
            "config": dataclasses.asdict(self.backbone.config),
            "classes": list(self.classes),
            "many_labels": self.many_labels,
            "temperature": self.temperature,
            "preprocess": self.preprocess.to_json(),
        }

    @classmethod
    def from_json(cls, description: dict[str, Any]) -> Classification:
        return cls(
            description["model"],
            models.create(description["model"], **description["config"]),
            description["classes"],
            Preprocess.from_json(description["preprocess"]),
            many_labels=description["many_labels"],
            temperature=description["temperature"],
        )


def class_weights(counts: NDArray[np.int64]) -> NDArray[np.float32]:
    """Weights that let every class count the same in the loss: inverse to its images, 1 on average over the images."""
    present = np.maximum(counts, 1)
    weights = counts.sum() / (len(counts) * present)
    return weights.astype(np.float32)
