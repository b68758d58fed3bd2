"""What a user wants out of an image. A task is the module that is trained: a backbone and the head that decides."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from vitrail.data.preprocess import Preprocess
from vitrail.data.sample import Batch
from vitrail.metrics.classification import LogitMetric
from vitrail.nn.backbone import Backbone
from vitrail.nn.features import Features


class Task(nn.Module, ABC):
    """A backbone with a head, and all that is needed to use them on images of the world.

    Attributes:
        name: the word for this task in files and on the command line.
        score: the key of :meth:`metric`'s figures by which one model is better than another; more is better.
        model: the backbone's name in the table of models.
        preprocess: how an image of the world becomes what the backbone was trained on.
    """

    name: ClassVar[str]
    score: str

    def __init__(self, model: str, backbone: Backbone, head: nn.Module, preprocess: Preprocess) -> None:
        super().__init__()
        self.model = model
        self.backbone = backbone
        self.head = head
        self.preprocess = preprocess

    def forward(self, images: Tensor) -> Tensor:
        """Images ``(B, C, H, W)``, uint8 as a loader gives them or float and normalised, to the head's output."""
        return self.head(self.features(images))

    def train(self, mode: bool = True) -> Task:
        """Training or evaluation mode; a part with no weight that is trained stays in evaluation mode.

        So the running statistics of frozen batch norms do not move, and frozen blocks do not drop anything.
        """
        super().train(mode)
        for module in self.modules():
            parameters = list(module.parameters())
            if parameters and not any(parameter.requires_grad for parameter in parameters):
                module.eval()
        return self

    def features(self, images: Tensor) -> Features:
        """The same images to what the head reads."""
        if images.dtype == torch.uint8:
            images = self.preprocess.normalize(images)
        return self.backbone(images)

    @abstractmethod
    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Scalars; the one called ``loss`` is minimised, the others are only recorded."""

    @abstractmethod
    def metric(self) -> LogitMetric:
        """A fresh accumulator of this task's figures."""

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """All but the weights, for ``model.json``."""

    @classmethod
    @abstractmethod
    def from_json(cls, description: dict[str, Any]) -> Task:
        """The task that :meth:`to_json` described, with fresh weights."""

    @property
    def depth(self) -> int:
        """Number of the last layer, for layer-wise learning rates; the head belongs to it."""
        return self.backbone.depth

    def layer(self, parameter_name: str) -> int:
        """The layer a parameter belongs to."""
        first, _, rest = parameter_name.partition(".")
        return self.backbone.layer(rest) if first == "backbone" else self.depth
