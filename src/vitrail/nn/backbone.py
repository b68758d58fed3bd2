"""What every model is, whatever its family: a network of images or of text."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import Field
from typing import Any, ClassVar, Protocol

from torch import Tensor, nn

from vitrail.nn.features import Features
from vitrail.nn.patch import resample_channels
from vitrail.nn.position import Resampling


class BackboneConfig(Protocol):
    """The two settings that the config (a frozen dataclass) of every family has."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the images in pixels."""

    @property
    def channels(self) -> int:
        """Channels of the images: 1 grey, 3 colour."""


class Network(nn.Module, ABC):
    """What every model is, whatever it reads: numbered layers, without a head.

    Attributes:
        config: the dataclass that it was built from.
        projections: last names of the linear maps of its attention, which low-rank adaptation changes.
        layer_decay: factor of the learning rate from each layer to the one below that suits its fine-tuning.
    """

    config: Any
    projections: tuple[str, ...] = ()
    layer_decay: float = 1.0

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

    def reads(self, parameter_name: str) -> bool:
        """Whether `forward` depends on a parameter; what it does not is there for objectives, which read further."""
        return True


class Backbone(Network):
    """A network from images to `Features`, without a head and without a number of classes.

    Attributes:
        classifier: which of `heads.CLASSIFIERS` its paper puts on it.
        input_kernel: name of the convolution's weight that reads the image.
        class_tokens: how many of the first tokens speak for the image (class and distillation token); 0 where its
            vector comes from the places.
        lag: by how many places the tokens stand behind the part of the image that they were made of (iGPT).
        merge: how many pairs of tokens become one in each block (`nn.merging`); None in a family that merges none.
    """

    config: BackboneConfig
    classifier: str = "linear"
    input_kernel: str
    class_tokens: int = 0
    lag: int = 0
    merge: int | None = None

    @property
    def auxiliary_widths(self) -> tuple[int, ...]:
        """Channels of each of ``Features.auxiliary``; most models have none."""
        return ()

    @abstractmethod
    def forward(self, images: Tensor) -> Features:
        """Float images ``(B, C, H, W)``, normalised, to features."""

    def adapted(self, weights: dict[str, Tensor], before: Any, resampling: Resampling) -> dict[str, Tensor]:
        """``weights`` of a model with the config ``before``, resampled to this one's image size and channels.

        A family whose weights depend on the image size has more to do than this, which changes the channels alone.
        """
        kernel = resample_channels(weights[self.input_kernel], self.config.channels)
        return weights | {self.input_kernel: kernel}


class TextConfig(Protocol):
    """The two settings that the config (a frozen dataclass) of every model of text has."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    @property
    def vocabulary(self) -> int:
        """Number of different tokens."""

    @property
    def context(self) -> int:
        """Most tokens of one input."""


class TextBackbone(Network):
    """A network from token ids to `Features`, without a head."""

    config: TextConfig

    @abstractmethod
    def forward(self, ids: Tensor, segments: Tensor | None = None, mask: Tensor | None = None) -> Features:
        """Token ids to features with the grid ``(T,)`` and no maps.

        Args:
            ids: ``(B, T)`` int64, T at most ``config.context``.
            segments: ``(B, T)`` int64, which of the input's parts a token is of; a model without segments leaves it.
            mask: ``(B, T)`` bool, False for what only fills a row up; None where every token counts.
        """

    def adapted(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """``weights`` of the same model for longer texts: of its learned ``positions`` the first ones are taken."""
        positions = self.state_dict().get("positions")
        if positions is None or "positions" not in weights:
            return weights
        return weights | {"positions": weights["positions"][: len(positions)]}


class PlainTransformer(Backbone):
    """A vision transformer whose tokens have one width all through a list of ``blocks``, as ViT's have.

    Its config has ``width`` and ``depth``. What stands before the blocks is layer 0, what is called ``behind`` them the
    last one.
    """

    config: Any
    projections: tuple[str, ...] = ("qkv", "proj")
    layer_decay = 0.75  # as BEiT and MAE are fine-tuned, at the size B
    behind: tuple[str, ...] = ("norm",)

    @property
    def width(self) -> int:
        """D, the size of ``pooled``."""
        return int(self.config.width)

    @property
    def depth(self) -> int:
        """Number of the last layer for layer-wise learning rates: blocks + 1."""
        return int(self.config.depth) + 1

    def layer(self, parameter_name: str) -> int:
        """The layer a parameter belongs to: 0 for embeddings, i + 1 for block i, `depth` for what follows."""
        first, *rest = parameter_name.split(".")
        if first == "blocks":
            return int(rest[0]) + 1
        return self.depth if first in self.behind else 0
