"""Low-rank adaptation: Hu et al. 2022, LoRA (arXiv:2106.09685), section 4.1."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch.nn.functional as F
from torch import Tensor, nn


class LoraLinear(nn.Module):
    """A linear map W that stays as it is, plus a trained one of low rank: W x + (α / r) B A x.

    ``(…, inputs)`` to ``(…, outputs)``. A is drawn, B is zero, so that training begins at W.

    Args:
        linear: the map to adapt, of any kind; it is frozen.
        rank: r.
        alpha: α, by which the change is scaled.
    """

    def __init__(self, linear: nn.Linear, rank: int, alpha: float) -> None:
        super().__init__()
        self.linear = linear.requires_grad_(False)
        self.scale = alpha / rank
        self.lora_a = nn.Parameter(linear.weight.new_empty(rank, linear.in_features))
        self.lora_b = nn.Parameter(linear.weight.new_zeros(linear.out_features, rank))
        nn.init.kaiming_uniform_(self.lora_a, a=math.sqrt(5))  # as the authors' code, as `nn.Linear` itself

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) + self.scale * F.linear(F.linear(x, self.lora_a), self.lora_b)


def add_lora(module: nn.Module, projections: Iterable[str], rank: int = 8, alpha: float = 16.0) -> int:
    """Adapt each linear map in ``module`` whose last name is one of ``projections``; returns how many they are."""
    names = set(projections)
    found = [
        (parent, name, child)
        for parent in module.modules()
        for name, child in parent.named_children()
        if name in names and isinstance(child, nn.Linear)
    ]
    for parent, name, child in found:
        setattr(parent, name, LoraLinear(child, rank, alpha))
    return len(found)


def merged(module: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """``module``'s ``state`` with every low-rank change added to its weight: that of the module without LoRA."""
    plain = dict(state)
    for name, part in module.named_modules():
        if isinstance(part, LoraLinear):
            change = part.scale * plain.pop(f"{name}.lora_b") @ plain.pop(f"{name}.lora_a")
            for inner in part.linear.state_dict():
                plain[f"{name}.{inner}"] = plain.pop(f"{name}.linear.{inner}")
            plain[f"{name}.weight"] = plain[f"{name}.weight"] + change
    return plain
