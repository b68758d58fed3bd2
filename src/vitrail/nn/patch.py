"""Patch embedding: an image cut into squares, each made one token by one linear map (Dosovitskiy et al., eq. 1).

And how a trained kernel changes for another patch size or another number of channels.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitrail.errors import SettingError


class PatchEmbedding(nn.Module):
    """``(B, C, H, W)`` to ``(B, D, H / p, W / p)``; raises :class:`SettingError` if p does not divide H and W."""

    def __init__(self, channels: int, width: int, patch_size: int) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.proj = nn.Conv2d(channels, width, kernel_size=patch_size, stride=patch_size)
        # The convolution is a linear map of p · p · C values, and is initialised as one.
        nn.init.normal_(self.proj.weight, std=math.sqrt(1 / (channels * patch_size**2)))
        nn.init.zeros_(self.proj.bias)  # type: ignore[arg-type]

    def forward(self, images: Tensor) -> Tensor:
        patch_grid((images.shape[-2], images.shape[-1]), self.patch_size)
        return self.proj(images)


def patch_grid(image_size: tuple[int, int], patch_size: int) -> tuple[int, int]:
    """Rows and columns of patches; raises :class:`SettingError` if the image does not divide into whole patches."""
    height, width = image_size
    if height % patch_size or width % patch_size:
        below, above = height // patch_size * patch_size, (height // patch_size + 1) * patch_size
        raise SettingError(
            f"image size {height}x{width} is not divisible by the patch size {patch_size}; "
            f"take an image size such as {above if below == 0 else below} or another patch size."
        )
    return height // patch_size, width // patch_size


def resample_kernel(kernel: Tensor, size: int) -> Tensor:
    """A patch embedding's kernel ``(D, C, p, p)`` for another patch size, ``(D, C, size, size)``.

    The kernel that gives patches scaled to the new size the tokens that the old one gave them, as nearly as may be:
    the pseudo-inverse of the matrix B that resizes a patch (Beyer et al. 2023, FlexiViT, section 3.4: PI-resize).
    """
    old = kernel.shape[-1]
    if old == size:
        return kernel
    basis = torch.eye(old * old).view(old * old, 1, old, old)
    resize = F.interpolate(basis, (size, size), mode="bicubic", antialias=True).flatten(1)  # Bᵀ: (p², size²)
    inverse = torch.linalg.pinv(resize)
    return (kernel.float().flatten(2) @ inverse.T).unflatten(2, (size, size)).to(kernel)


def resample_channels(kernel: Tensor, channels: int) -> Tensor:
    """A kernel ``(D, C, h, w)`` for images of another number of channels, ``(D, channels, h, w)``.

    For grey images the kernels of all channels are added up, so that a grey image gives what it gave as RGB. For
    others they are repeated in turn, and scaled so that the sum over channels keeps its size (as timm does).
    """
    before = kernel.shape[1]
    if before == channels:
        return kernel
    if channels == 1:
        return kernel.sum(dim=1, keepdim=True)
    repeated = kernel.repeat(1, -(-channels // before), 1, 1)[:, :channels]
    return repeated * (before / channels)
