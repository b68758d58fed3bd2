"""A few small convolutions in place of the patch embedding: Xiao et al. 2021, Early convolutions help transformers."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from vitrail.errors import SettingError
from vitrail.nn.patch import patch_grid


class ConvStem(nn.Module):
    """``(B, C, H, W)`` to ``(B, D, H / p, W / p)`` for a patch size p = 2ᵏ.

    A 3x3 convolution at full resolution, k more with stride 2 (each with BatchNorm and ReLU) that double their channels
    up to D / 2, and a 1x1 convolution to D. The paper begins with the strided ones; images of few pixels gain by the
    first. The model then knows from the start what it would have to learn: that neighbouring pixels belong together.

    Raises :class:`SettingError` for a patch size that is no power of two, or that does not divide D.
    """

    def __init__(self, channels: int, width: int, patch_size: int) -> None:
        super().__init__()
        halvings = patch_size.bit_length() - 1
        if patch_size != 2**halvings or halvings == 0 or width % patch_size:
            raise SettingError(
                f"a convolutional stem needs a patch size of 2, 4, 8 … that divides {width}, not {patch_size}; "
                "take another, or stem=patch."
            )
        self.patch_size = patch_size
        widths = [width // 2 ** (halvings - i) for i in range(halvings)]
        self.convs = nn.Sequential(
            _conv(channels, widths[0], stride=1),
            *(_conv(before, after, stride=2) for before, after in pairwise([widths[0], *widths])),
        )
        self.proj = nn.Conv2d(widths[-1], width, kernel_size=1)

    def forward(self, images: Tensor) -> Tensor:
        patch_grid((images.shape[-2], images.shape[-1]), self.patch_size)
        return self.proj(self.convs(images))


def _conv(channels: int, width: int, stride: int) -> nn.Sequential:
    conv = nn.Conv2d(channels, width, kernel_size=3, stride=stride, padding=1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(width), nn.ReLU())
