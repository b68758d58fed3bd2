"""BiT: Kolesnikov, Beyer, Zhai, Puigcerver, Yung, Gelly, Houlsby, "Big Transfer (BiT): General Visual Representation
Learning", ECCV 2020, arXiv:1912.11370.

A ResNet-v2 (He et al. 2016, "Identity Mappings in Deep Residual Networks", arXiv:1603.05027) whose convolutions have
standardised weights and whose batch norms are group norms, so that an image does not depend on the others of its batch
and nothing needs to be estimated anew on other data (section 3.1).
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from vitrail.errors import SettingError
from vitrail.nn.backbone import Backbone
from vitrail.nn.conv import StdConv2d
from vitrail.nn.features import Features


@dataclass(frozen=True)
class Config:
    """A BiT's shape.

    Attributes:
        depths: blocks in each stage; every stage but the first halves the resolution.
        width: channels of the stem and of the first stage's 3x3 convolutions, doubled from stage to stage: 64 times the
            factor behind the x of a size's name.
        groups: of channels in every group norm.
        conv_eps: added to the variance of a kernel before it is standardised: 1e-10 in the authors' code, 1e-8 in timm
            and Transformers.
        image_size: height and width in pixels; any will do, it is no part of the weights.
        channels: 1 for grey images, 3 for RGB.
    """

    depths: tuple[int, ...]
    width: int
    groups: int = 32
    conv_eps: float = 1e-10
    image_size: tuple[int, int] = (224, 224)
    channels: int = 3


SIZES: dict[str, Config] = {  # section 3.1; r152x2 came later, in github.com/google-research/big_transfer
    "bit-r50x1": Config((3, 4, 6, 3), 64),
    "bit-r50x3": Config((3, 4, 6, 3), 192),
    "bit-r101x1": Config((3, 4, 23, 3), 64),
    "bit-r101x3": Config((3, 4, 23, 3), 192),
    "bit-r152x2": Config((3, 8, 36, 3), 128),
    "bit-r152x4": Config((3, 8, 36, 3), 256),
}
EXPANSION = 4  # channels after a block for each one of its 3x3 convolution


def convolution(config: Config, inputs: int, outputs: int, kernel: int, stride: int = 1) -> StdConv2d:
    """A standardised convolution; its padding keeps the resolution but for the stride."""
    conv = StdConv2d(inputs, outputs, kernel, stride, padding=kernel // 2, eps=config.conv_eps)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return conv


class Block(nn.Module):
    """Pre-activation bottleneck: each convolution comes after its norm and ReLU (He et al. 2016, figure 4e).

    The stride is on the 3x3 convolution. Where the shape changes, the shortcut is a 1x1 convolution of the input
    after the first norm and ReLU, else the input as it is.
    """

    def __init__(self, config: Config, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = width * EXPANSION
        self.norm1 = nn.GroupNorm(config.groups, inputs)
        self.conv1 = convolution(config, inputs, width, 1)
        self.norm2 = nn.GroupNorm(config.groups, width)
        self.conv2 = convolution(config, width, width, 3, stride)
        self.norm3 = nn.GroupNorm(config.groups, width)
        self.conv3 = convolution(config, width, outputs, 1)
        changes = (inputs, stride) != (outputs, 1)
        self.shortcut = convolution(config, inputs, outputs, 1, stride) if changes else None

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm1(x))
        around = x if self.shortcut is None else self.shortcut(y)
        y = self.conv1(y)
        y = self.conv2(F.relu(self.norm2(y)))
        y = self.conv3(F.relu(self.norm3(y)))
        return y + around


def stem(config: Config) -> nn.Sequential:
    """Images ``(B, C, H, W)`` to ``(B, width, H/4, W/4)``, without norm or ReLU.

    The border of zeros is the authors'. A max-pool's own border would never win: these zeros do, over negative values.
    """
    conv = convolution(config, config.channels, config.width, 7, stride=2)
    return nn.Sequential(OrderedDict(conv=conv, pad=nn.ZeroPad2d(1), pool=nn.MaxPool2d(3, stride=2)))


class BiT(Backbone):
    """A BiT without its classifier.

    Its features: ``maps`` are the stages' outputs, the last one after the final norm and ReLU, ``tokens`` the last
    map's places, ``pooled`` their mean. Raises :class:`SettingError` for a width that the groups do not divide.
    """

    config: Config
    input_kernel = "stem.conv.weight"

    def __init__(self, config: Config) -> None:
        super().__init__()
        if config.width % config.groups:
            raise SettingError(
                f"the width {config.width} is not divisible by {config.groups} groups; take a multiple or other groups."
            )
        self.config = config
        self.stem = stem(config)
        self.stages = nn.ModuleList(self._stage(number) for number in range(len(config.depths)))
        self.norm = nn.GroupNorm(config.groups, self.width)

    def _stage(self, number: int) -> nn.Sequential:
        width = self.config.width * 2**number
        inputs, stride = (width, 1) if number == 0 else (width // 2 * EXPANSION, 2)
        first = Block(self.config, inputs, width, stride)
        others = (Block(self.config, width * EXPANSION, width, 1) for _ in range(self.config.depths[number] - 1))
        return nn.Sequential(first, *others)

    @property
    def width(self) -> int:
        """Channels of the last stage, the size of ``pooled``."""
        return self.config.width * 2 ** (len(self.config.depths) - 1) * EXPANSION

    @property
    def depth(self) -> int:
        """The number of blocks, and the final norm."""
        return sum(self.config.depths) + 1

    def layer(self, parameter_name: str) -> int:
        """0 for the stem, then the blocks counted through all stages, ``depth`` for the final norm."""
        part, *rest = parameter_name.split(".")
        if part != "stages":
            return 0 if part == "stem" else self.depth
        return sum(self.config.depths[: int(rest[0])]) + int(rest[1]) + 1

    def forward(self, images: Tensor) -> Features:
        """Float images ``(B, C, H, W)``, normalised, to features."""
        x, maps = self.stem(images), []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        last = F.relu(self.norm(x))
        return Features(
            tokens=last.flatten(2).transpose(1, 2),
            prefix=0,
            grid=(last.shape[2], last.shape[3]),
            pooled=last.mean(dim=(2, 3)),
            maps=(*maps[:-1], last),
        )
