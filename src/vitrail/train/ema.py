"""Exponential moving average of the weights (Polyak and Juditsky 1992)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from vitrail.train import distributed, sharding


class Ema:
    """A second set of weights that follows a module's: ``average += (1 - decay) · (weight - average)`` each step.

    Early on the decay is smaller, (1 + t) / (10 + t), so that the initial weights are soon forgotten. Buffers that are
    not floating point are copied.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.weights = {name: value.detach().clone() for name, value in module.state_dict().items()}

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        """Follow ``module`` as it is after ``step``."""
        decay = min(self.decay, (1 + step) / (10 + step))
        averages: list[Tensor] = []
        weights: list[Tensor] = []
        for name, value in module.state_dict().items():
            if value.is_floating_point():
                averages.append(distributed.own_part(self.weights[name]))
                weights.append(distributed.own_part(value.detach()))
            else:
                self.weights[name].copy_(value)
        torch._foreach_lerp_(averages, weights, 1 - decay)

    @torch.no_grad()
    def load(self, weights: dict[str, Tensor]) -> None:
        """Take over whole (unsharded) averages."""
        for name, value in self.weights.items():
            value.copy_(sharding.like(weights[name], value))

    @contextmanager
    def in_place_of(self, module: nn.Module) -> Iterator[None]:
        """Within the context, ``module`` has the averaged weights."""
        own = {name: value.detach().clone() for name, value in module.state_dict().items()}
        module.load_state_dict(self.weights)
        try:
            yield
        finally:
            module.load_state_dict(own)
