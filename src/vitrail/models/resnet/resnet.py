"""ResNet: He, Zhang, Ren, Sun, "Deep Residual Learning for Image Recognition", CVPR 2016, arXiv:1512.03385.

As it is trained everywhere today ("v1.5"): in a bottleneck the stride is on the 3x3 convolution, not on the first 1x1.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from vitrail.errors import SettingError
from vitrail.nn.backbone import Backbone
from vitrail.nn.features import Features


@dataclass(frozen=True)
class Config:
    """A residual network's shape.

    Attributes:
        block: "basic" (two 3x3 convolutions) or "bottleneck" (1x1, 3x3 and 1x1, with four times the channels after it).
        depths: residual blocks in each stage; every stage but the first halves the resolution.
        width: channels of the stem and of the first stage's 3x3 convolutions; doubled from stage to stage.
        stem: "imagenet", a 7x7 convolution and a max-pool that together quarter the resolution, or "small", a 3x3
            convolution that keeps it (the paper's section 4.2), for images of up to about 64 pixels.
        zero_init: begin each block as the identity, its last norm's scale being 0 (Goyal et al. 2017, section 5.1).
        image_size: height and width in pixels; any will do, it is no part of the weights.
        channels: 1 for grey images, 3 for RGB.
    """

    block: Literal["basic", "bottleneck"]
    depths: tuple[int, ...]
    width: int = 64
    stem: Literal["imagenet", "small"] = "imagenet"
    zero_init: bool = True
    image_size: tuple[int, int] = (224, 224)
    channels: int = 3


SIZES: dict[str, Config] = {  # table 1
    "resnet-18": Config("basic", (2, 2, 2, 2)),
    "resnet-34": Config("basic", (3, 4, 6, 3)),
    "resnet-50": Config("bottleneck", (3, 4, 6, 3)),
    "resnet-101": Config("bottleneck", (3, 4, 23, 3)),
    "resnet-152": Config("bottleneck", (3, 8, 36, 3)),
}


class ConvNorm(nn.Sequential):
    """A convolution, its padding keeping the resolution but for the stride, and a batch norm in place of its bias."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, *, zero_init: bool = False) -> None:
        conv = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)
        norm = nn.BatchNorm2d(outputs)
        super().__init__(OrderedDict(conv=conv, norm=norm))
        nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
        if zero_init:
            nn.init.zeros_(norm.weight)


class Basic(nn.Module):
    """Two 3x3 convolutions and the input (figure 5, left)."""

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int, *, zero_init: bool) -> None:
        super().__init__()
        self.conv1 = ConvNorm(inputs, width, 3, stride)
        self.conv2 = ConvNorm(width, width, 3, zero_init=zero_init)
        self.shortcut = shortcut(inputs, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(x).relu_()
        return (self.conv2(y) + self.shortcut(x)).relu_()


class Bottleneck(nn.Module):
    """Narrow, convolve, widen, and the input (figure 5, right)."""

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int, *, zero_init: bool) -> None:
        super().__init__()
        outputs = width * self.expansion
        self.conv1 = ConvNorm(inputs, width, 1)
        self.conv2 = ConvNorm(width, width, 3, stride)
        self.conv3 = ConvNorm(width, outputs, 1, zero_init=zero_init)
        self.shortcut = shortcut(inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(x).relu_()
        y = self.conv2(y).relu_()
        return (self.conv3(y) + self.shortcut(x)).relu_()


BLOCKS: dict[str, type[Basic | Bottleneck]] = {"basic": Basic, "bottleneck": Bottleneck}


def shortcut(inputs: int, outputs: int, stride: int) -> nn.Module:
    """The input itself, or its 1x1 convolution where the shape changes (the paper's option B)."""
    return nn.Identity() if (inputs, stride) == (outputs, 1) else ConvNorm(inputs, outputs, 1, stride)


def stem(config: Config) -> nn.Sequential:
    """Images ``(B, C, H, W)`` to ``(B, width, H/4, W/4)``, or with the small stem ``(B, width, H, W)``."""
    if config.stem == "small":
        return nn.Sequential(ConvNorm(config.channels, config.width, 3), nn.ReLU(inplace=True))
    pool = nn.MaxPool2d(3, stride=2, padding=1)
    return nn.Sequential(ConvNorm(config.channels, config.width, 7, stride=2), nn.ReLU(inplace=True), pool)


class ResNet(Backbone):
    """A residual network without its classifier.

    Its features: ``maps`` are the stages' outputs, ``tokens`` the last map's places, ``pooled`` their mean.
    Raises :class:`SettingError` for a block or stem that there is not.
    """

    config: Config

    def __init__(self, config: Config) -> None:
        super().__init__()
        for what, value, known in (("block", config.block, BLOCKS), ("stem", config.stem, ("imagenet", "small"))):
            if value not in known:
                raise SettingError(f"a ResNet has no {what} '{value}'; known are: {', '.join(known)}.")
        self.config = config
        self.stem = stem(config)
        self.stages = nn.ModuleList(self._stage(number) for number in range(len(config.depths)))

    def _stage(self, number: int) -> nn.Sequential:
        config, block = self.config, BLOCKS[self.config.block]
        width = config.width * 2**number
        inputs, stride = (config.width, 1) if number == 0 else (width // 2 * block.expansion, 2)
        first = block(inputs, width, stride, zero_init=config.zero_init)
        outputs = width * block.expansion
        others = (block(outputs, width, 1, zero_init=config.zero_init) for _ in range(config.depths[number] - 1))
        return nn.Sequential(first, *others)

    @property
    def width(self) -> int:
        """Channels of the last stage, the size of ``pooled``."""
        return self.config.width * 2 ** (len(self.config.depths) - 1) * BLOCKS[self.config.block].expansion

    @property
    def depth(self) -> int:
        """The number of residual blocks."""
        return sum(self.config.depths)

    def layer(self, parameter_name: str) -> int:
        """0 for the stem, then the residual blocks counted through all stages."""
        part, *rest = parameter_name.split(".")
        if part == "stem":
            return 0
        stage, block = int(rest[0]), int(rest[1])
        return sum(self.config.depths[:stage]) + block + 1

    def forward(self, images: Tensor) -> Features:
        """Float images ``(B, C, H, W)``, normalised, to features."""
        maps = [self.stem(images)]
        for stage in self.stages:
            maps.append(stage(maps[-1]))
        last = maps[-1]
        return Features(
            tokens=last.flatten(2).transpose(1, 2),
            prefix=0,
            grid=(last.shape[2], last.shape[3]),
            pooled=last.mean(dim=(2, 3)),
            maps=tuple(maps[1:]),
        )
