"""LeNet-5: LeCun, Bottou, Bengio, Haffner, "Gradient-Based Learning Applied to Document Recognition", 1998.

Section II.B and figure 2. The layers carry the paper's names: C convolves, S sub-samples, F is fully connected. The
paper's output layer, Euclidean distances to drawn characters, would be a head and is not here.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitrail.errors import SettingError
from vitrail.nn.backbone import Backbone
from vitrail.nn.features import Features


@dataclass(frozen=True)
class Config:
    """LeNet-5 has one size; only what it looks at may change.

    Attributes:
        image_size: (32, 32) as in the paper, or (28, 28), which is padded to it.
        channels: 1, the paper's, or more.
    """

    image_size: tuple[int, int] = (28, 28)
    channels: int = 1

    def __post_init__(self) -> None:
        if self.image_size not in ((28, 28), (32, 32)):
            height, width = self.image_size
            raise SettingError(f"LeNet-5 reads images of 28x28 or 32x32 pixels, not {height}x{width}.")


SIZES: dict[str, Config] = {"lenet-5": Config()}

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
        sums = F.avg_pool2d(x, 2, divisor_override=1)
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

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.c1 = nn.Conv2d(config.channels, 6, 5)
        self.s2 = SubSampling(6)
        self.c3 = TableConvolution(6, C3_TABLE)
        self.s4 = SubSampling(16)
        self.c5 = nn.Conv2d(16, 120, 5)
        self.f6 = nn.Linear(120, 84)
        for layer in (self.c1, self.c5, self.f6):
            for parameter in layer.parameters():
                draw(parameter, layer.weight[0].numel())

    @property
    def width(self) -> int:
        return 84

    @property
    def depth(self) -> int:
        return 5

    def layer(self, parameter_name: str) -> int:
        return ("c1", "s2", "c3", "s4", "c5", "f6").index(parameter_name.split(".")[0])

    def forward(self, images: Tensor) -> Features:
        """Float images ``(B, C, H, W)`` of the config's size, normalised, to features."""
        s2 = squash(self.s2(squash(self.c1(self._padded(images)))))
        s4 = squash(self.s4(squash(self.c3(s2))))
        c5 = squash(self.c5(s4)).flatten(1)
        return Features(
            tokens=s4.flatten(2).transpose(1, 2), prefix=0, grid=(5, 5), pooled=squash(self.f6(c5)), maps=(s2, s4)
        )

    def _padded(self, images: Tensor) -> Tensor:
        """To 32x32. The border is repeated, since zero is not the background's value once images are normalised."""
        height, width = self.config.image_size
        if images.shape[2:] != (height, width):
            given = "x".join(map(str, images.shape[2:]))
            raise SettingError(f"this LeNet-5 reads images of {height}x{width} pixels, not {given}.")
        border = (32 - height) // 2
        return F.pad(images, (border,) * 4, mode="replicate") if border else images
