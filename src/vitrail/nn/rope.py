"""Rotary positions (Su et al. 2021) on two axes, as DINOv3 has them: rotation of halves, coordinates in [-1, 1]."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from vitrail.errors import SettingError


@dataclass(frozen=True)
class Rotation:
    """Cosines and sines ``(N, d)`` by which the last N tokens are turned; tokens before them have no position."""

    cos: Tensor
    sin: Tensor


def rotary_2d(
    grid: tuple[int, int], head_width: int, base: float = 100.0, device: torch.device | None = None
) -> Rotation:
    """The rotation for an ``(h, w)`` grid of patches: first the angles of rows, then of columns.

    A patch's coordinate is the place of its centre between -1 and 1 on each axis, so that another resolution of the
    same picture has the same coordinates (Siméoni et al. 2025, DINOv3).
    """
    if head_width % 4:
        raise SettingError(f"rotary positions need a head width that is a multiple of 4, not {head_width}.")
    rows, columns = grid
    periods = base ** (torch.arange(head_width // 4, device=device) * 4 / head_width)
    y = (torch.arange(rows, device=device) + 0.5) / rows * 2 - 1
    x = (torch.arange(columns, device=device) + 0.5) / columns * 2 - 1
    coordinates = torch.stack(torch.meshgrid(y, x, indexing="ij"), dim=-1).reshape(-1, 2, 1)
    angles = (2 * math.pi * coordinates / periods).flatten(1).repeat(1, 2)
    return Rotation(angles.cos(), angles.sin())


def rotate(x: Tensor, rotation: Rotation) -> Tensor:
    """Turn the last N tokens of ``x (B, heads, P + N, d)``; the P tokens before them (class, registers) stay."""
    cos, sin = rotation.cos.to(x.dtype), rotation.sin.to(x.dtype)
    prefix, patches = x.split([x.shape[-2] - len(cos), len(cos)], dim=-2)
    first, second = patches.chunk(2, dim=-1)
    turned = patches * cos + torch.cat([-second, first], dim=-1) * sin
    return torch.cat([prefix, turned], dim=-2)
