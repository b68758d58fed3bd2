"""Positions on a grid of patches: fixed sine-cosine ones, and how learned ones change to another grid."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from vitrail.errors import SettingError

# How libraries resample learned positions, which differs by enough to be seen in the logits:
# "bilinear" with the corners kept in place (Google's, by scipy's zoom), or with the outer edges (PVT: half a pixel
# beyond), as always with "bicubic" (Transformers, DeiT, MAE), with "antialias" (timm), or with a tenth of a patch added
# to the new size before the scale is taken (DINOv2's first).
Resampling = Literal["bilinear", "bilinear-half-pixel", "bicubic", "bicubic-antialias", "bicubic-offset"]


def resample_positions(
    positions: Tensor, before: tuple[int, int], after: tuple[int, int], resampling: Resampling
) -> Tensor:
    """Learned positions ``(1, P + h · w, D)`` of the grid ``before``, for the grid ``after``; the first P stay.

    Computed in float32; the result has the dtype that was given.
    """
    if before == after:
        return positions
    prefix = positions.shape[1] - before[0] * before[1]
    first, patches = positions.split([prefix, positions.shape[1] - prefix], dim=1)
    grid = patches.transpose(1, 2).unflatten(2, before).float()
    return torch.cat([first, resample_grid(grid, after, resampling).flatten(2).transpose(1, 2).to(first)], dim=1)


def resample_grid(grid: Tensor, size: tuple[int, int], resampling: Resampling) -> Tensor:
    """Values on a grid, ``(B, C, H, W)`` float, for another size of it."""
    if resampling == "bilinear":
        return F.interpolate(grid, size, mode="bilinear", align_corners=True)
    if resampling == "bilinear-half-pixel":
        return F.interpolate(grid, size, mode="bilinear")
    if resampling == "bicubic-offset":
        scale = tuple((n + 0.1) / o for n, o in zip(size, grid.shape[2:], strict=True))
        return F.interpolate(grid, scale_factor=scale, mode="bicubic")
    return F.interpolate(grid, size, mode="bicubic", antialias=resampling == "bicubic-antialias")


def sincos_2d(grid: tuple[int, int], width: int, temperature: float = 10_000.0, *, endpoint: bool = True) -> Tensor:
    """Positions ``(h · w, width)`` float32: sin x, cos x, sin y, cos y, a quarter of the width each.

    The frequencies fall geometrically from 1 to 1 / ``temperature``; that is the last one in MoCo v3 (Chen et al. 2021)
    and big_vision (Beyer et al. 2022, Better plain ViT baselines), and would be the next (no ``endpoint``) in MAE.
    """
    if width % 4 or width < 8:
        raise SettingError(f"sine-cosine positions need a width that is a multiple of 4 and at least 8, not {width}.")
    quarter = width // 4
    omega = temperature ** -(torch.arange(quarter, dtype=torch.float64) / (quarter - endpoint))
    rows, columns = grid
    y, x = torch.meshgrid(torch.arange(rows).double(), torch.arange(columns).double(), indexing="ij")
    x, y = x.reshape(-1, 1) * omega, y.reshape(-1, 1) * omega
    return torch.cat([x.sin(), x.cos(), y.sin(), y.cos()], dim=1).float()
