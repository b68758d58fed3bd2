"""The stem of the hybrids (Dosovitskiy et al. 2021, section 3.1): a ResNet whose feature map is cut into patches.

Its norms are GroupNorm and its convolutions have standardised weights, as in BiT (Kolesnikov et al. 2020); unlike BiT's
its blocks end with their activation. The paper's code is vit_jax/models_resnet.py.
"""

from __future__ import annotations

from collections import OrderedDict

import torch.nn.functional as F
from torch import Tensor, nn

from vitrail.errors import SettingError
from vitrail.nn.conv import StdConv2d, pad_same
from vitrail.nn.patch import PatchEmbedding, patch_grid

ROOT_WIDTH = 64


class ResNetStem(nn.Module):
    """``(B, C, H, W)`` to ``(B, D, H / p, W / p)`` for a patch size p.

    A convolution and a pooling quarter the resolution, every stage but the first halves it, and the rest of p is the
    side of the patches that the feature map is cut into.

    Args:
        channels, width: C and D.
        patch_size: p, in pixels of the image.
        stages: bottleneck blocks in each stage; none for the root alone (R+ViT).

    Raises :class:`SettingError` for a patch size that is no multiple of what the stages leave of the resolution.
    """

    def __init__(self, channels: int, width: int, patch_size: int, stages: tuple[int, ...]) -> None:
        super().__init__()
        reduction = 4 * 2 ** max(len(stages) - 1, 0)
        if patch_size % reduction:
            raise SettingError(f"a ResNet of the stages {stages} needs a patch size of {reduction} or its multiples.")
        self.patch_size = patch_size
        self.root = std_conv(channels, ROOT_WIDTH, 7, 2)
        self.stages = nn.ModuleList(stage(number, blocks) for number, blocks in enumerate(stages))
        outputs = 4 * ROOT_WIDTH * 2 ** (len(stages) - 1) if stages else ROOT_WIDTH
        self.proj = PatchEmbedding(outputs, width, patch_size // reduction).proj

    def forward(self, images: Tensor) -> Tensor:
        patch_grid((images.shape[-2], images.shape[-1]), self.patch_size)
        x = self.root(images).relu_()
        x = F.max_pool2d(pad_same(x, kernel=3, stride=2, value=float("-inf")), kernel_size=3, stride=2)
        for blocks in self.stages:
            x = blocks(x)
        return self.proj(x)


class Bottleneck(nn.Module):
    """Narrow, convolve, widen, and the input; the last norm begins with the scale 0, so that a block does nothing."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = 4 * width
        self.conv1 = std_conv(inputs, width, 1)
        self.conv2 = std_conv(width, width, 3, stride)
        self.conv3 = std_conv(width, outputs, 1)
        self.shortcut = nn.Identity() if (inputs, stride) == (outputs, 1) else std_conv(inputs, outputs, 1, stride)
        nn.init.zeros_(self.conv3.get_submodule("norm").weight)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(x).relu_()
        y = self.conv2(y).relu_()
        return (self.conv3(y) + self.shortcut(x)).relu_()


def stage(number: int, blocks: int) -> nn.Sequential:
    """The blocks of one stage, counted from 0; all but the first stage halve the resolution in their first block."""
    width = ROOT_WIDTH * 2**number
    inputs, stride = (ROOT_WIDTH, 1) if number == 0 else (2 * width, 2)
    first = Bottleneck(inputs, width, stride)
    return nn.Sequential(first, *(Bottleneck(4 * width, width, 1) for _ in range(blocks - 1)))


def std_conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """A convolution with standardised weights and TensorFlow's padding, and a GroupNorm of 32 groups."""
    conv = StdConv2d(inputs, outputs, kernel, stride, padding="same")
    return nn.Sequential(OrderedDict(conv=conv, norm=nn.GroupNorm(32, outputs, eps=1e-6)))
