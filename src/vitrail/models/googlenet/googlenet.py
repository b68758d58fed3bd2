"""GoogLeNet: Szegedy et al., "Going Deeper with Convolutions", CVPR 2015, arXiv:1409.4842.

Nine inception modules look at everything at several scales at once; 1x1 convolutions keep that affordable. As it is
used today and as torchvision has it: a batch norm behind every convolution (Ioffe, Szegedy 2015) in place of the
local response normalisation, a last max-pool of 2x2 instead of 3x3, and 3x3 instead of 5x5 convolutions, since the
weights that there are were trained so.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitrail.errors import SettingError
from vitrail.nn.backbone import Backbone
from vitrail.nn.features import Features

# Table 1: output channels of #1x1, #3x3 reduce, #3x3, #5x5 reduce, #5x5, pool proj.
INCEPTIONS = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}
POOLS = {"3a": 3, "4a": 3, "5a": 2}  # sides of the max-pools, of stride 2, before these
AUXILIARY = ("4a", "4d")  # whose outputs the auxiliary classifiers read
LAYERS = ("conv1", "conv2", "conv3", *INCEPTIONS)
SMALLEST = 15  # pixels that leave one place for every pooling


@dataclass(frozen=True)
class Config:
    """GoogLeNet has one size.

    Attributes:
        auxiliary: whether the features hold what the two auxiliary classifiers of the training read.
        kernel: side of the modules' large convolutions: 5 as in the paper, or 3 as in the weights that there are.
        dropout: rate in training, of the pooled vector.
        image_size: height and width in pixels, at least 15 each; no part of the weights.
        channels: 1 for grey images, 3 for RGB.
    """

    auxiliary: bool = True
    kernel: int = 3
    dropout: float = 0.4
    image_size: tuple[int, int] = (224, 224)
    channels: int = 3


SIZES: dict[str, Config] = {"googlenet": Config()}


class ConvNorm(nn.Sequential):
    """A convolution, its padding keeping the resolution but for the stride, a batch norm and a ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        conv = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)
        norm = nn.BatchNorm2d(outputs, eps=1e-3)
        super().__init__(OrderedDict(conv=conv, norm=norm, relu=nn.ReLU(inplace=True)))
        nn.init.trunc_normal_(conv.weight, std=0.01, a=-2, b=2)


class Inception(nn.Module):
    """Four branches side by side, their channels one behind the other (figure 2b).

    ``(B, inputs, H, W)`` to ``(B, C, H, W)``, C being the sum of what the branches put out.

    Args:
        inputs: channels.
        widths: a row of table 1.
        kernel: side of the large convolution.
    """

    def __init__(self, inputs: int, widths: tuple[int, int, int, int, int, int], kernel: int) -> None:
        super().__init__()
        one, reduce_middle, middle, reduce_large, large, pooled = widths
        self.one = ConvNorm(inputs, one, 1)
        self.middle = nn.Sequential(ConvNorm(inputs, reduce_middle, 1), ConvNorm(reduce_middle, middle, 3))
        self.large = nn.Sequential(ConvNorm(inputs, reduce_large, 1), ConvNorm(reduce_large, large, kernel))
        self.pool = nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1), ConvNorm(inputs, pooled, 1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.one(x), self.middle(x), self.large(x), self.pool(x)], dim=1)


def width_of(inception: str) -> int:
    """Channels that an inception module puts out."""
    one, _, middle, _, large, pooled = INCEPTIONS[inception]
    return one + middle + large + pooled


class GoogLeNet(Backbone):
    """Three convolutions and nine inception modules.

    Its features: ``pooled`` is the mean of the last map's places; ``maps`` are the ends of the stages, at a quarter to
    a 32nd of the resolution; ``tokens`` are the last map's places; ``auxiliary`` are the outputs of modules 4a and 4d.
    Raises :class:`SettingError` for images that are too small or another kernel.
    """

    config: Config
    classifier = "auxiliary"
    input_kernel = "stem.conv1.conv.weight"

    def __init__(self, config: Config) -> None:
        super().__init__()
        if config.kernel not in (3, 5):
            raise SettingError(f"the kernel of GoogLeNet's large convolutions is 3 or 5, not {config.kernel}.")
        if min(config.image_size) < SMALLEST:
            height, width = config.image_size
            raise SettingError(
                f"GoogLeNet needs images of at least {SMALLEST}x{SMALLEST} pixels, not {height}x{width}."
            )
        self.config = config
        self.stem = nn.Sequential(
            OrderedDict(
                conv1=ConvNorm(config.channels, 64, 7, stride=2),
                pool=nn.MaxPool2d(3, stride=2, ceil_mode=True),
                conv2=ConvNorm(64, 64, 1),
                conv3=ConvNorm(64, 192, 3),
            )
        )
        self.inceptions = nn.ModuleDict()
        inputs = 192
        for name, widths in INCEPTIONS.items():
            self.inceptions[name] = Inception(inputs, widths, config.kernel)
            inputs = width_of(name)
        self.dropout = nn.Dropout(config.dropout)

    @property
    def width(self) -> int:
        """Channels of the last map, the size of ``pooled``."""
        return width_of("5b")

    @property
    def auxiliary_widths(self) -> tuple[int, ...]:
        """Channels of the maps for auxiliary classifiers."""
        return tuple(map(width_of, AUXILIARY)) if self.config.auxiliary else ()

    @property
    def depth(self) -> int:
        """The number of convolutions and modules but the first."""
        return len(LAYERS) - 1

    def layer(self, parameter_name: str) -> int:
        """0 for the first convolution, then the convolutions and inception modules in turn."""
        return LAYERS.index(parameter_name.split(".")[1])

    def forward(self, images: Tensor) -> Features:
        """Float images ``(B, C, H, W)``, normalised, to features."""
        x = self.stem(images)
        maps, auxiliary = [], []
        for name, inception in self.inceptions.items():
            if name in POOLS:
                maps.append(x)
                x = F.max_pool2d(x, POOLS[name], stride=2, ceil_mode=True)
            x = inception(x)
            if name in AUXILIARY and self.config.auxiliary:
                auxiliary.append(x)
        return Features(
            tokens=x.flatten(2).transpose(1, 2),
            prefix=0,
            grid=(x.shape[2], x.shape[3]),
            pooled=self.dropout(x.mean(dim=(2, 3))),
            maps=(*maps, x),
            auxiliary=tuple(auxiliary),
        )
