"""Classification: one class an image, or any number of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from vitrail import models
from vitrail.data.preprocess import Preprocess
from vitrail.data.read import decode
from vitrail.data.sample import Batch, Image, Sample
from vitrail.errors import SettingError
from vitrail.heads import CLASSIFIERS
from vitrail.metrics.classification import ClassificationMetric, LogitMetric
from vitrail.metrics.many_labels import ManyLabelsMetric
from vitrail.nn.backbone import Backbone
from vitrail.tasks.task import Task


@dataclass(frozen=True)
class Scored:
    """A class and how probable the model holds it, between 0 and 1."""

    label: str
    score: float


class Classification(Task):
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

    def scores(self, logits: Tensor) -> Tensor:
        """Calibrated probabilities ``(B, K)``; with one label an image they sum to 1."""
        logits = logits.float() / self.temperature
        return logits.sigmoid() if self.many_labels else logits.softmax(dim=-1)

    def decode(self, logits: Tensor, top: int = 5) -> list[list[Scored]]:
        """For each image its ``top`` classes, the most probable first."""
        values, indices = self.scores(logits).topk(min(top, len(self.classes)))
        return [
            [Scored(self.classes[k], round(score, 6)) for k, score in zip(ks, scores, strict=True)]
            for ks, scores in zip(indices.tolist(), values.tolist(), strict=True)
        ]

    def metric(self) -> LogitMetric:
        return ManyLabelsMetric(self.classes) if self.many_labels else ClassificationMetric(self.classes)

    @torch.inference_mode()
    def predict(self, image: str | Path | Image, top: int = 5) -> list[Scored]:
        """The ``top`` classes of one image: a path, or an array ``(H, W, C)`` uint8 with C = 1 or 3.

        Raises :class:`vitrail.errors.UnreadableImage` for a file that is no readable image, :class:`SettingError` for
        another kind of array.
        """
        self.eval()
        pixels = image if isinstance(image, np.ndarray) else decode(Path(image), str(image))
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] not in (1, 3) or not pixels.size:
            raise SettingError(f"an image is an array (H, W, 1 or 3) of uint8, not {pixels.shape} of {pixels.dtype}.")
        prepared = self.preprocess.apply(Sample(pixels, "image"))[0].image
        device = next(self.parameters()).device
        batch = torch.from_numpy(prepared).permute(2, 0, 1)[None].to(device)
        return self.decode(self(batch), top)[0]

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
