"""Backbone: what every model is, whatever its family."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import Field
from typing import Any, ClassVar, Protocol

from torch import Tensor, nn

from vitrail.nn.features import Features


class BackboneConfig(Protocol):
    """The two settings that the config (a frozen dataclass) of every family has."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the images in pixels."""

    @property
    def channels(self) -> int:
        """Channels of the images: 1 grey, 3 colour."""


class Backbone(nn.Module, ABC):
    """A network from images to `Features`, without a head and without a number of classes."""

    config: BackboneConfig

    @property
    @abstractmethod
    def width(self) -> int:
        """Size of ``Features.pooled``, which is what a classifier reads."""

    @property
    @abstractmethod
    def depth(self) -> int:
        """Number of the last layer, counted as `layer` counts."""

    @abstractmethod
    def layer(self, parameter_name: str) -> int:
        """The layer of a parameter out of ``named_parameters()``: 0 for the stem, upwards to `depth` for the last.

        Layer-wise learning-rate decay slows a parameter down by one factor a layer that lies between it and the head.
        """

    @abstractmethod
    def forward(self, images: Tensor) -> Features:
        """Float images ``(B, C, H, W)``, normalised, to features."""
