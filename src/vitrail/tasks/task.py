"""What a user wants out of an image. A task is the module that is trained: a backbone and the head that decides."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vitrail.data.preprocess import Preprocess
from vitrail.errors import SettingError
from vitrail.nn.backbone import Backbone
from vitrail.nn.features import Features
from vitrail.nn.patch_transformer import PatchTransformer
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
        return self.backbone(self._normalized(images))

    def packed(self, groups: Sequence[Tensor]) -> Tensor:
        """Images of several sizes, a group ``(B_i, C, H_i, W_i)`` each, as one row without padding; the head's output.

        Equal to `forward` of each group, one after the other. Raises :class:`SettingError` for a backbone that cannot.
        """
        backbone = self.packing_backbone()
        return torch.cat([self.head(each) for each in backbone.packed([self._normalized(x) for x in groups])])

    def packing_backbone(self) -> PatchTransformer:
        """The backbone if images can be packed for it. Raises :class:`SettingError` if not."""
        if not isinstance(self.backbone, PatchTransformer):
            raise SettingError(
                f"images of several sizes cannot be packed for {self.model}; they can for the plain vision "
                "transformers: ViT, DeiT, DINOv3, RoPE-ViT."
            )
        return self.backbone

    def _normalized(self, images: Tensor) -> Tensor:
        return self.preprocess.normalize(images) if images.dtype == torch.uint8 else images

    @abstractmethod
    def metric(self) -> Any:
        """A fresh accumulator of this task's figures."""
