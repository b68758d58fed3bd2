"""Fixed two-dimensional sine-cosine positions (Chen et al. 2021, MoCo v3; Beyer et al. 2022)."""

from __future__ import annotations

import torch
from torch import Tensor

from vitrail.errors import SettingError


def sincos_2d(grid: tuple[int, int], width: int, temperature: float = 10_000.0) -> Tensor:
    """Positions ``(h · w, width)`` float32: sin x, cos x, sin y, cos y, a quarter of the width each.

    The frequencies fall geometrically from 1 to 1 / ``temperature``, both included.
    """
    if width % 4 or width < 8:
        raise SettingError(f"sine-cosine positions need a width that is a multiple of 4 and at least 8, not {width}.")
    quarter = width // 4
    omega = temperature ** -(torch.arange(quarter, dtype=torch.float64) / (quarter - 1))
    rows, columns = grid
    y, x = torch.meshgrid(torch.arange(rows).double(), torch.arange(columns).double(), indexing="ij")
    x, y = x.reshape(-1, 1) * omega, y.reshape(-1, 1) * omega
    return torch.cat([x.sin(), x.cos(), y.sin(), y.cos()], dim=1).float()
