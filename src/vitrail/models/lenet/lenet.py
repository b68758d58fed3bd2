"""LeNet-5: LeCun, Bottou, Bengio, Haffner, "Gradient-Based Learning Applied to Document Recognition", 1998.

Section II.B and figure 2. The layers carry the paper's names: C convolves, S sub-samples, F is fully connected. The
paper's output layer, Euclidean distances to drawn characters, would be a head and is not here. LeNet-5 as it is mostly
built today, with a dense C3, ReLU and max-pooling, differs in three settings.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitrail.errors import SettingError
from vitrail.nn.backbone import Backbone
from vitrail.nn.features import Features

CHOICES = {"c3": ("table", "dense"), "activation": ("tanh", "relu"), "pooling": ("trainable", "max")}


@dataclass(frozen=True)
class Config:
    """LeNet-5 has one size; what it looks at may change, and how it computes, as in later versions.

    Attributes:
        image_size: (32, 32) as in the paper, or (28, 28), which is padded to it.
        channels: 1, the paper's, or more.
        c3: whether the maps of C3 see those of S2 that the paper's table gives them, or all.
        activation: the paper's scaled tanh, or ReLU.
        pooling: the paper's trainable sub-sampling, or the maximum of 2x2 pixels.
    """

    image_size: tuple[int, int] = (28, 28)
    channels: int = 1
    c3: Literal["table", "dense"] = "table"
    activation: Literal["tanh", "relu"] = "tanh"
    pooling: Literal["trainable", "max"] = "trainable"

    def __post_init__(self) -> None:
        if self.image_size not in ((28, 28), (32, 32)):
            height, width = self.image_size
            raise SettingError(f"LeNet-5 reads images of 28x28 or 32x32 pixels, not {height}x{width}.")
        for what, known in CHOICES.items():
            if (value := getattr(self, what)) not in known:
                raise SettingError(f"LeNet-5 has no {what} '{value}'; known are: {', '.join(known)}.")


SIZES: dict[str, Config] = {
    "lenet-5": Config(),
    # As it is mostly built today: 61,706 parameters with a linear classifier of 10 classes.
    "lenet-5-relu": Config((32, 32), c3="dense", activation="relu", pooling="max"),
}

# Table I of the paper: the maps of S2 that each of the 16 maps of C3 sees. "It forces a break of symmetry."
C3_TABLE = (
    *((0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 5), (0, 4, 5), (0, 1, 5)),
    *((0, 1, 2, 3), (1, 2, 3, 4), (2, 3, 4, 5), (0, 3, 4, 5), (0, 1, 4, 5), (0, 1, 2, 5)),
    *((0, 1, 3, 4), (1, 2, 4, 5), (0, 2, 3, 5)),
    (0, 1, 2, 3, 4, 5),
)


def squash(x: Tensor) -> Tensor:
    """The paper's sigmoid, 1.7159 tanh(2x/3), which is 1 at 1 and -1 at -1 (appendix A)."""
    return 1.7159 * torch.tanh(x * (2 / 3))


def draw(parameter: Tensor, fan_in: int) -> None:
    """Fill uniformly within ±2.4 / fan-in, so that a unit's sum stays in the sigmoid's steep part (appendix A)."""
    nn.init.uniform_(parameter, -2.4 / fan_in, 2.4 / fan_in)


class SubSampling(nn.Module):
    """S2 and S4: the sum of 2x2 pixels, times one trainable coefficient a map, plus one bias a map.

    ``(B, C, H, W)`` to ``(B, C, H/2, W/2)``.
    """

    def __init__(self, maps: int) -> None:
        super().__init__()
        self.coefficient = nn.Parameter(torch.empty(maps))
        self.bias = nn.Parameter(torch.empty(maps))
        draw(self.coefficient, 4)
        draw(self.bias, 4)

    def forward(self, x: Tensor) -> Tensor:
        sums = 4 * F.avg_pool2d(x, 2)
        return sums * self.coefficient[:, None, None] + self.bias[:, None, None]


class TableConvolution(nn.Module):
    """C3: a 5x5 convolution in which output map i sees the input maps ``table[i]`` alone.

    Only the kernels of the connections that exist are parameters, so that neither momentum nor decay nor a loaded
    checkpoint can bring an absent one to life. They are laid out among zeros for one dense convolution, which is faster
    than a convolution a group.
    """

    connections: Tensor

    def __init__(self, inputs: int, table: tuple[tuple[int, ...], ...]) -> None:
        super().__init__()
        self.shape = (len(table), inputs, 5, 5)
        self.weight = nn.Parameter(torch.empty(sum(map(len, table)), 5, 5))
        self.bias = nn.Parameter(torch.empty(len(table)))
        places = [output * inputs + seen for output, row in enumerate(table) for seen in row]
        self.register_buffer("connections", torch.tensor(places), persistent=False)
        kernels = self.weight.detach().split([len(row) for row in table])
        for kernel, bias in zip(kernels, self.bias.detach(), strict=True):
            draw(kernel, kernel.numel())
            draw(bias, kernel.numel())

    def forward(self, x: Tensor) -> Tensor:
        outputs, inputs, height, width = self.shape
        absent = self.weight.new_zeros(outputs * inputs, height, width)
        dense = absent.index_copy(0, self.connections, self.weight)
        return F.conv2d(x, dense.view(self.shape), self.bias)


class LeNet(Backbone):
    """LeNet-5 up to F6: 60,000 trainable parameters.

    Its features: ``pooled`` (B, 84) is F6, a 7x12 picture of the character; ``maps`` are S2 (B, 6, 14, 14) and S4
    (B, 16, 5, 5); ``tokens`` (B, 25, 16) are S4's places, since behind S4 there is no grid.
    Raises :class:`SettingError` for images of another size than the config's.
    """

    config: Config
    input_kernel = "c1.weight"

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.c1 = nn.Conv2d(config.channels, 6, 5)
        trainable, table = config.pooling == "trainable", config.c3 == "table"
        self.s2 = SubSampling(6) if trainable else nn.MaxPool2d(2)
        self.c3 = TableConvolution(6, C3_TABLE) if table else nn.Conv2d(6, 16, 5)
        self.s4 = SubSampling(16) if trainable else nn.MaxPool2d(2)
        self.c5 = nn.Conv2d(16, 120, 5)
        self.f6 = nn.Linear(120, 84)
        self.activation = squash if config.activation == "tanh" else F.relu
        for layer in self.children():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                for parameter in layer.parameters():
                    draw(parameter, layer.weight[0].numel())

    @property
    def width(self) -> int:
        return 84

    @property
    def depth(self) -> int:
        return len(self._layers()) - 1

    def layer(self, parameter_name: str) -> int:
        return self._layers().index(parameter_name.split(".")[0])

    def _layers(self) -> list[str]:
        """Those with parameters, in order; max-pooling has none."""
        return [name for name, part in self.named_children() if next(part.parameters(), None) is not None]

    def forward(self, images: Tensor) -> Features:
        """Float images ``(B, C, H, W)`` of the config's size, normalised, to features."""
        active = self.activation
        s2 = active(self.s2(active(self.c1(self._padded(images)))))
        s4 = active(self.s4(active(self.c3(s2))))
        f6 = active(self.f6(active(self.c5(s4)).flatten(1)))
        return Features(tokens=s4.flatten(2).transpose(1, 2), prefix=0, grid=(5, 5), pooled=f6, maps=(s2, s4))

    def _padded(self, images: Tensor) -> Tensor:
        """To 32x32. The border is repeated, since zero is not the background's value once images are normalised."""
        height, width = self.config.image_size
        if images.shape[2:] != (height, width):
            given = "x".join(map(str, images.shape[2:]))
            raise SettingError(f"this LeNet-5 reads images of {height}x{width} pixels, not {given}.")
        border = (32 - height) // 2
        return F.pad(images, (border,) * 4, mode="replicate") if border else images
