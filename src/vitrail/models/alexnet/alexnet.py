"""AlexNet: Krizhevsky, "One weird trick for parallelizing convolutional neural networks", 2014, arXiv:1404.5997.

This is the network of the note of 2014, which most libraries mean by AlexNet, as torchvision has it: without local
response normalisation. The first one (Krizhevsky, Sutskever, Hinton, NIPS 2012) was cut in two for two GPUs, with
convolutions 2, 4 and 5 in two groups; it had 96, 256, 384, 384 and 256 channels instead of 64, 192, 384, 256 and 256,
normalised the responses behind the first two, and had 60,965,224 parameters.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from vitrail.errors import SettingError
from vitrail.nn.backbone import Backbone
from vitrail.nn.features import Features

SIDE = 6  # of the last map, 6x6, that fc6 reads
SMALLEST = 63  # pixels that leave one place after the last pooling


@dataclass(frozen=True)
class Config:
    """AlexNet's shape.

    Attributes:
        widths: channels of the five convolutions.
        hidden: units of the fully connected layers fc6 and fc7.
        dropout: rate in training, before fc6 and before fc7.
        image_size: height and width in pixels, at least 63 each; no part of the weights, since the last map is averaged
            to 6x6.
        channels: 1 for grey images, 3 for RGB.
    """

    widths: tuple[int, int, int, int, int] = (64, 192, 384, 256, 256)
    hidden: tuple[int, int] = (4096, 4096)
    dropout: float = 0.5
    image_size: tuple[int, int] = (224, 224)
    channels: int = 3


SIZES: dict[str, Config] = {"alexnet": Config()}


class AlexNet(Backbone):
    """Five convolutions and two fully connected layers.

    Its features: ``pooled`` is fc7 behind its ReLU; ``maps`` are what the three max-pools leave, at about an 8th, a
    16th and a 32nd of the resolution; ``tokens`` are the last map's places.
    Raises :class:`SettingError` for images that are too small.
    """

    config: Config
    input_kernel = "conv1.weight"

    def __init__(self, config: Config) -> None:
        super().__init__()
        if min(config.image_size) < SMALLEST:
            height, width = config.image_size
            raise SettingError(f"AlexNet needs images of at least {SMALLEST}x{SMALLEST} pixels, not {height}x{width}.")
        self.config = config
        one, two, three, four, five = config.widths
        self.conv1 = nn.Conv2d(config.channels, one, 11, stride=4, padding=2)
        self.conv2 = nn.Conv2d(one, two, 5, padding=2)
        self.conv3 = nn.Conv2d(two, three, 3, padding=1)
        self.conv4 = nn.Conv2d(three, four, 3, padding=1)
        self.conv5 = nn.Conv2d(four, five, 3, padding=1)
        self.fc6 = nn.Linear(five * SIDE * SIDE, config.hidden[0])
        self.fc7 = nn.Linear(config.hidden[0], config.hidden[1])
        self.dropout = nn.Dropout(config.dropout)
        self._initialise()

    def _initialise(self) -> None:
        """As layers/layers-imagenet-1gpu.cfg of the author's cuda-convnet2; biases of 1 keep units alive at first."""
        for name, std, bias in (
            ("conv1", 0.01, 0.0),
            ("conv2", 0.01, 1.0),
            ("conv3", 0.03, 0.0),
            ("conv4", 0.03, 1.0),
            ("conv5", 0.03, 1.0),
            ("fc6", 0.01, 1.0),
            ("fc7", 0.01, 1.0),
        ):
            nn.init.normal_(self.get_parameter(f"{name}.weight"), std=std)
            nn.init.constant_(self.get_parameter(f"{name}.bias"), bias)

    @property
    def width(self) -> int:
        """Units of fc7."""
        return self.config.hidden[1]

    @property
    def depth(self) -> int:
        """The number of layers with weights but the first."""
        return 6

    def layer(self, parameter_name: str) -> int:
        """0 for the first convolution, then convolutions and fully connected layers in turn."""
        return ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7").index(parameter_name.split(".")[0])

    def forward(self, images: Tensor) -> Features:
        """Float images ``(B, C, H, W)``, normalised, to features."""
        pool1 = F.max_pool2d(F.relu(self.conv1(images)), 3, stride=2)
        pool2 = F.max_pool2d(F.relu(self.conv2(pool1)), 3, stride=2)
        conv4 = F.relu(self.conv4(F.relu(self.conv3(pool2))))
        pool5 = F.max_pool2d(F.relu(self.conv5(conv4)), 3, stride=2)
        fc6 = F.relu(self.fc6(self.dropout(F.adaptive_avg_pool2d(pool5, SIDE).flatten(1))))
        return Features(
            tokens=pool5.flatten(2).transpose(1, 2),
            prefix=0,
            grid=(pool5.shape[2], pool5.shape[3]),
            pooled=F.relu(self.fc7(self.dropout(fc6))),
            maps=(pool1, pool2, pool5),
        )
