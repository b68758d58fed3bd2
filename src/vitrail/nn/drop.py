"""Stochastic depth (Huang et al. 2016)."""

from __future__ import annotations

from torch import Tensor, nn


class DropPath(nn.Module):
    """In training, drops a residual branch for some inputs of the batch and scales the others up by 1 / (1 - rate).

    Draws from PyTorch's generator, which the training loop seeds with (seed, step).
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0.0:
            return x
        keep = x.new_empty((len(x),) + (1,) * (x.ndim - 1)).bernoulli_(1.0 - self.rate)
        return x * keep / (1.0 - self.rate)

    def extra_repr(self) -> str:
        return f"rate={self.rate:g}"


def drop_path_rates(rate: float, depth: int) -> list[float]:
    """Rates that grow linearly from 0 in the first block to ``rate`` in the last."""
    return [rate * i / max(depth - 1, 1) for i in range(depth)]
