"""VGG: Simonyan, Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", ICLR 2015.

arXiv:1409.1556. Nothing but 3x3 convolutions, in stages that a max-pool ends, and fully connected layers. Those with a
batch norm behind each convolution (Ioffe, Szegedy 2015) are not in the paper, but are mostly what is used today.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from vitrail.errors import SettingError
from vitrail.nn.backbone import Backbone
from vitrail.nn.features import Features

SIDE = 7  # of the windows, 7x7, that fc6 reads


@dataclass(frozen=True)
class Config:
    """A VGG's shape.

    Attributes:
        depths: convolutions in each stage; a max-pool at its end halves the resolution.
        batch_norm: whether a batch norm follows each convolution.
        widths: channels of each stage.
        hidden: units of the fully connected layers fc6 and fc7.
        dense: what becomes of a last map of more than 7x7 places, that is of images above 224 pixels. Averaged to the
            7x7 that fc6 reads (false, torchvision), or fc6 and fc7 read every 7x7 window of it and the results are
            averaged (true, timm): the paper's dense evaluation (section 3.2).
        dropout: rate in training, behind fc6 and behind fc7.
        image_size: height and width in pixels, at least 32 each; no part of the weights.
        channels: 1 for grey images, 3 for RGB.
    """

    depths: tuple[int, ...]
    batch_norm: bool = False
    widths: tuple[int, ...] = (64, 128, 256, 512, 512)
    hidden: tuple[int, int] = (4096, 4096)
    dense: bool = False
    dropout: float = 0.5
    image_size: tuple[int, int] = (224, 224)
    channels: int = 3


SIZES: dict[str, Config] = {  # table 1: A, B, D and E
    "vgg-11": Config((1, 1, 2, 2, 2)),
    "vgg-13": Config((2, 2, 2, 2, 2)),
    "vgg-16": Config((2, 2, 3, 3, 3)),
    "vgg-19": Config((2, 2, 4, 4, 4)),
    "vgg-11-bn": Config((1, 1, 2, 2, 2), batch_norm=True),
    "vgg-13-bn": Config((2, 2, 2, 2, 2), batch_norm=True),
    "vgg-16-bn": Config((2, 2, 3, 3, 3), batch_norm=True),
    "vgg-19-bn": Config((2, 2, 4, 4, 4), batch_norm=True),
}


def convolution(inputs: int, outputs: int, *, batch_norm: bool) -> nn.Sequential:
    """A 3x3 convolution that keeps the resolution, its batch norm where there is one, and a ReLU."""
    conv = nn.Conv2d(inputs, outputs, 3, padding=1)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")  # as those that trained the weights
    nn.init.constant_(conv.get_parameter("bias"), 0)
    layers: OrderedDict[str, nn.Module] = OrderedDict(conv=conv)
    if batch_norm:
        layers["norm"] = nn.BatchNorm2d(outputs)
    layers["relu"] = nn.ReLU(inplace=True)
    return nn.Sequential(layers)


class VGG(Backbone):
    """Stages of convolutions and two fully connected layers.

    Its features: ``pooled`` is fc7 behind its ReLU; ``maps`` are what the max-pool of each stage leaves, at a half to a
    32nd of the resolution; ``tokens`` are the last map's places.
    Raises :class:`SettingError` for images that are too small, or unless there is a width for each stage.
    """

    config: Config
    input_kernel = "stages.0.0.conv.weight"

    def __init__(self, config: Config) -> None:
        super().__init__()
        if len(config.depths) != len(config.widths):
            raise SettingError(f"a VGG of {len(config.depths)} stages needs a width for each, not {config.widths}.")
        smallest = 2 ** len(config.depths)
        if min(config.image_size) < smallest:
            height, width = config.image_size
            raise SettingError(f"this VGG needs images of at least {smallest}x{smallest} pixels, not {height}x{width}.")
        self.config = config
        self.stages = nn.ModuleList(self._stage(number) for number in range(len(config.depths)))
        self.fc6 = nn.Linear(config.widths[-1] * SIDE * SIDE, config.hidden[0])
        self.fc7 = nn.Linear(config.hidden[0], config.hidden[1])
        self.dropout = nn.Dropout(config.dropout)
        for layer in (self.fc6, self.fc7):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)

    def _stage(self, number: int) -> nn.Sequential:
        before, width = (self.config.channels, *self.config.widths)[number : number + 2]
        inputs = [before] + [width] * (self.config.depths[number] - 1)
        return nn.Sequential(*(convolution(each, width, batch_norm=self.config.batch_norm) for each in inputs))

    @property
    def width(self) -> int:
        """Units of fc7."""
        return self.config.hidden[1]

    @property
    def depth(self) -> int:
        """The number of layers with weights but the first."""
        return sum(self.config.depths) + 1

    def layer(self, parameter_name: str) -> int:
        """0 for the first convolution, then the convolutions through all stages, then fc6 and fc7."""
        part, *rest = parameter_name.split(".")
        if part == "stages":
            return sum(self.config.depths[: int(rest[0])]) + int(rest[1])
        return self.depth - 1 if part == "fc6" else self.depth

    def forward(self, images: Tensor) -> Features:
        """Float images ``(B, C, H, W)``, normalised, to features."""
        maps = [images]
        for stage in self.stages:
            maps.append(F.max_pool2d(stage(maps[-1]), 2))
        last = maps[-1]
        return Features(
            tokens=last.flatten(2).transpose(1, 2),
            prefix=0,
            grid=(last.shape[2], last.shape[3]),
            pooled=self._fully_connected(self._windows(last)),
            maps=tuple(maps[1:]),
        )

    def _windows(self, last: Tensor) -> Tensor:
        """What fc6 reads of the last map ``(B, C, h, w)``: N windows, ``(B, N, 49 C)``."""
        if not self.config.dense:
            return F.adaptive_avg_pool2d(last, SIDE).flatten(1)[:, None]
        at_least = (max(SIDE, last.shape[2]), max(SIDE, last.shape[3]))
        return F.unfold(F.adaptive_avg_pool2d(last, at_least), SIDE).transpose(1, 2)

    def _fully_connected(self, windows: Tensor) -> Tensor:
        """``(B, N, 49 C)`` to fc7, the mean over the windows, ``(B, width)``."""
        fc6 = self.dropout(F.relu(self.fc6(windows)))
        return self.dropout(F.relu(self.fc7(fc6)).mean(dim=1))
