"""Patch embedding: an image cut into squares, each made one token by one linear map (Dosovitskiy et al., eq. 1)."""

from __future__ import annotations

import math

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
