"""What says the classes of an image: a classification, or the file that one was exported to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from vitrail.data.preprocess import Preprocess
from vitrail.data.read import decode
from vitrail.data.sample import Image, Sample
from vitrail.errors import SettingError
from vitrail.metrics.classification import ClassificationMetric, LogitMetric
from vitrail.metrics.many_labels import ManyLabelsMetric


@dataclass(frozen=True)
class Scored:
    """A class and how probable the model holds it, between 0 and 1."""

    label: str
    score: float


class Classifier(nn.Module):
    """From images ``(B, C, H, W)`` uint8, prepared by ``preprocess``, to logits ``(B, K)``; and what these mean.

    Attributes:
        model: the backbone's name in the table of models.
        classes: the K class names, in the order of the logits.
        many_labels: whether an image may have any number of classes (sigmoid) instead of exactly one (softmax).
        temperature: by which logits are divided before they become scores (Guo et al. 2017).
        preprocess: how an image of the world becomes what the model sees.
    """

    model: str
    classes: tuple[str, ...]
    many_labels: bool
    temperature: float
    preprocess: Preprocess

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

    def class_number(self, words: str) -> int | None:
        """The number of a class from 0, given by name or as that number; None for none of the classes."""
        if words in self.classes:
            return self.classes.index(words)
        if words.isdecimal() and len(words) < 10 and int(words) < len(self.classes):
            return int(words)
        return None

    def metric(self) -> LogitMetric:
        """A fresh accumulator of the figures of this kind of classification."""
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
        device = next((parameter.device for parameter in self.parameters()), None)
        batch = torch.from_numpy(prepared).permute(2, 0, 1)[None].to(device)
        return self.decode(self(batch), top)[0]
