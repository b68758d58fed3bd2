"""Layer normalisation (Ba et al. 2016)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class LayerNorm(nn.LayerNorm):
    """PyTorch's, with the epsilon that vision transformers use (1e-6) as the default."""

    def __init__(self, width: int, *, eps: float = 1e-6, bias: bool = True) -> None:
        super().__init__(width, eps=eps, bias=bias)


class LayerScale(nn.Module):
    """One learned factor a channel at the end of a residual branch (Touvron et al. 2021, "Going deeper")."""

    def __init__(self, width: int, initial: float) -> None:
        super().__init__()
        self.initial = initial
        self.gamma = nn.Parameter(torch.full((width,), initial))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma
