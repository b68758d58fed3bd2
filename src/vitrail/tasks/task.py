"""What a user wants out of an image. A task is the module that is trained: a backbone and the head that decides."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from vitrail.data.preprocess import Preprocess
from vitrail.nn.backbone import Backbone
from vitrail.nn.features import Features
from vitrail.tasks.learner import Learner


class Task(Learner):
    """A backbone with a head, and all that is needed to use them on images of the world.

    Attributes:
        preprocess: how an image of the world becomes what the backbone was trained on.
    """

    backbone: Backbone

    def __init__(self, model: str, backbone: Backbone, head: nn.Module, preprocess: Preprocess) -> None:
        super().__init__()
        self.model = model
        self.backbone = backbone
        self.head = head
        self.preprocess = preprocess

    def forward(self, images: Tensor) -> Tensor:
        """Images ``(B, C, H, W)``, uint8 as a loader gives them or float and normalised, to the head's output."""
        return self.head(self.features(images))

    def features(self, images: Tensor) -> Features:
        """The same images to what the head reads."""
        if images.dtype == torch.uint8:
            images = self.preprocess.normalize(images)
        return self.backbone(images)

    @abstractmethod
    def metric(self) -> Any:
        """A fresh accumulator of this task's figures."""
