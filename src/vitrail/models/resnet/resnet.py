"""ResNet: He, Zhang, Ren, Sun, "Deep Residual Learning for Image Recognition", CVPR 2016, arXiv:1512.03385.

As it is trained everywhere today ("v1.5"): in a bottleneck the stride is on the 3x3 convolution, not on the first 1x1.
With groups in that convolution it is ResNeXt: Xie, Girshick, Dollár, Tu, He, "Aggregated Residual Transformations for
Deep Neural Networks", CVPR 2017, arXiv:1611.05431.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, Literal

import torch.nn.functional as F
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
        groups: into how many groups a bottleneck's 3x3 convolution is split (ResNeXt's cardinality C).
        group_width: channels of one of them in the first stage (ResNeXt's d), doubled from stage to stage; None for
            ``width``.
        shortcut: what the input of a block becomes where the shape changes: a 1x1 convolution ("projection", the
            paper's option B), or its every second pixel with zeros for the new channels ("pad", option A). With
            "absent" no block has a shortcut: the paper's plain networks.
        stem: "imagenet", a 7x7 convolution and a max-pool that together quarter the resolution, or "small", a 3x3
            convolution that keeps it (the paper's section 4.2), for images of up to about 64 pixels.
        zero_init: begin each block as the identity, its last norm's scale being 0 (Goyal et al. 2017, section 5.1);
            says nothing to a plain network.
        image_size: height and width in pixels; any will do, it is no part of the weights.
        channels: 1 for grey images, 3 for RGB.
    """

    block: Literal["basic", "bottleneck"]
    depths: tuple[int, ...]
    width: int = 64
    groups: int = 1
    group_width: int | None = None
    shortcut: Literal["projection", "pad", "absent"] = "projection"
    stem: Literal["imagenet", "small"] = "imagenet"
    zero_init: bool = True
    image_size: tuple[int, int] = (224, 224)
    channels: int = 3


def _cifar(blocks: int) -> Config:
    return Config("basic", (blocks,) * 3, width=16, shortcut="pad", stem="small", image_size=(32, 32))


def _resnext(depths: tuple[int, ...], groups: int, group_width: int) -> Config:
    return Config("bottleneck", depths, groups=groups, group_width=group_width)


SIZES: dict[str, Config] = {
    # For CIFAR-10: He et al. 2016, section 4.2 and table 6; 6n + 2 layers.
    "resnet-20": _cifar(3),
    "resnet-32": _cifar(5),
    "resnet-44": _cifar(7),
    "resnet-56": _cifar(9),
    "resnet-110": _cifar(18),
    # He et al. 2016, table 1.
    "resnet-18": Config("basic", (2, 2, 2, 2)),
    "resnet-34": Config("basic", (3, 4, 6, 3)),
    "resnet-50": Config("bottleneck", (3, 4, 6, 3)),
    "resnet-101": Config("bottleneck", (3, 4, 23, 3)),
    "resnet-152": Config("bottleneck", (3, 8, 36, 3)),
    # Xie et al. 2017, tables 1 and 4; 32x8d is of Mahajan et al. 2018, arXiv:1805.00932.
    "resnext-50-32x4d": _resnext((3, 4, 6, 3), 32, 4),
    "resnext-101-32x8d": _resnext((3, 4, 23, 3), 32, 8),
    "resnext-101-64x4d": _resnext((3, 4, 23, 3), 64, 4),
}


class ConvNorm(nn.Sequential):
    """A convolution, its padding keeping the resolution but for the stride, and a batch norm in place of its bias."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int = 1, *, groups: int = 1, zero_init: bool = False
    ) -> None:
        conv = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=False)
        norm = nn.BatchNorm2d(outputs)
        super().__init__(OrderedDict(conv=conv, norm=norm))
        nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
        if zero_init:
            nn.init.zeros_(norm.weight)


class Pad(nn.Module):
    """``(B, C, H, W)`` to ``(B, outputs, H/stride, W/stride)``: pixels left out, channels of zeros on both sides."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.before = (outputs - inputs) // 2
        self.after = outputs - inputs - self.before
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.before, self.after))


def shortcut(kind: str, inputs: int, outputs: int, stride: int) -> nn.Module | None:
    """The way around a block: the input itself, or what `Config.shortcut` makes of it where the shape changes."""
    if kind == "absent":
        return None
    if (inputs, stride) == (outputs, 1):
        return nn.Identity()
    return Pad(inputs, outputs, stride) if kind == "pad" else ConvNorm(inputs, outputs, 1, stride)


def joined(branch: Tensor, x: Tensor, around: nn.Module | None) -> Tensor:
    """The end of a block: what its convolutions say, and its input where there is a shortcut, rectified."""
    return (branch if around is None else branch + around(x)).relu_()


class Basic(nn.Module):
    """Two 3x3 convolutions and the input (figure 5, left)."""

    expansion = 1

    def __init__(
        self, inputs: int, width: int, stride: int, *, zero_init: bool, shortcut_kind: str = "projection"
    ) -> None:
        super().__init__()
        self.conv1 = ConvNorm(inputs, width, 3, stride)
        self.conv2 = ConvNorm(width, width, 3, zero_init=zero_init)
        self.shortcut = shortcut(shortcut_kind, inputs, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(x).relu_()
        return joined(self.conv2(y), x, self.shortcut)


class Bottleneck(nn.Module):
    """Narrow, convolve, widen, and the input (figure 5, right); with groups the block of ResNeXt (its figure 3c)."""

    expansion = 4

    def __init__(
        self,
        inputs: int,
        width: int,
        stride: int,
        *,
        zero_init: bool,
        shortcut_kind: str = "projection",
        groups: int = 1,
        group_width: int | None = None,
    ) -> None:
        super().__init__()
        inner, outputs = groups * (group_width or width), width * self.expansion
        self.conv1 = ConvNorm(inputs, inner, 1)
        self.conv2 = ConvNorm(inner, inner, 3, stride, groups=groups)
        self.conv3 = ConvNorm(inner, outputs, 1, zero_init=zero_init)
        self.shortcut = shortcut(shortcut_kind, inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(x).relu_()
        y = self.conv2(y).relu_()
        return joined(self.conv3(y), x, self.shortcut)


BLOCKS: dict[str, type[Basic | Bottleneck]] = {"basic": Basic, "bottleneck": Bottleneck}
SHORTCUTS = ("projection", "pad", "absent")


def stem(config: Config) -> nn.Sequential:
    """Images ``(B, C, H, W)`` to ``(B, width, H/4, W/4)``, or with the small stem ``(B, width, H, W)``."""
    if config.stem == "small":
        return nn.Sequential(ConvNorm(config.channels, config.width, 3), nn.ReLU(inplace=True))
    pool = nn.MaxPool2d(3, stride=2, padding=1)
    return nn.Sequential(ConvNorm(config.channels, config.width, 7, stride=2), nn.ReLU(inplace=True), pool)


class ResNet(Backbone):
    """A residual network without its classifier.

    Its features: ``maps`` are the stages' outputs, ``tokens`` the last map's places, ``pooled`` their mean.
    Raises :class:`SettingError` for a block, shortcut or stem that there is not, and for groups in a basic block.
    """

    config: Config
    input_kernel = "stem.0.conv.weight"

    def __init__(self, config: Config) -> None:
        super().__init__()
        for what, value, known in (
            ("block", config.block, tuple(BLOCKS)),
            ("shortcut", config.shortcut, SHORTCUTS),
            ("stem", config.stem, ("imagenet", "small")),
        ):
            if value not in known:
                raise SettingError(f"a ResNet has no {what} '{value}'; known are: {', '.join(known)}.")
        if config.block == "basic" and (config.groups, config.group_width) != (1, None):
            raise SettingError("a basic block has no groups of channels; take block=bottleneck.")
        self.config = config
        self.stem = stem(config)
        self.stages = nn.ModuleList(self._stage(number) for number in range(len(config.depths)))

    def _stage(self, number: int) -> nn.Sequential:
        config, block = self.config, BLOCKS[self.config.block]
        width = config.width * 2**number
        inputs, stride = (config.width, 1) if number == 0 else (width // 2 * block.expansion, 2)
        options: dict[str, Any] = {
            "zero_init": config.zero_init and config.shortcut != "absent",
            "shortcut_kind": config.shortcut,
        }
        if config.block == "bottleneck":
            options |= {"groups": config.groups, "group_width": config.group_width and config.group_width * 2**number}
        first = block(inputs, width, stride, **options)
        others = (block(width * block.expansion, width, 1, **options) for _ in range(config.depths[number] - 1))
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
