"""Optimizers with the parameter groups that transformers need: no decay on some, smaller steps in lower layers."""

from __future__ import annotations

from collections import defaultdict
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from vitrail.choices import OptimizerName


class Learner(Protocol):
    """Anything that can be trained: a module with a loss, whose parameters know their layer."""

    depth: int

    def layer(self, parameter_name: str) -> int: ...
    def named_parameters(self) -> Any: ...


def has_decay(name: str, parameter: Tensor) -> bool:
    """Only matrices and kernels decay: not norms, biases, positions, tokens, or anything else not called weight."""
    return name.endswith("weight") and parameter.ndim >= 2


def parameter_groups(learner: Learner, weight_decay: float, layer_decay: float = 1.0) -> list[dict[str, Any]]:
    """Groups for an optimizer, each with its ``weight_decay`` and its ``scale`` of the learning rate.

    A parameter of layer i of n has the scale ``layer_decay ** (n - i)``: 1 at the head (Bao et al. 2022, BEiT).
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = defaultdict(list)
    for name, parameter in learner.named_parameters():
        if parameter.requires_grad:
            scale = layer_decay ** (learner.depth - learner.layer(name))
            groups[weight_decay if has_decay(name, parameter) else 0.0, scale].append(parameter)
    return [{"params": params, "weight_decay": decay, "scale": scale} for (decay, scale), params in groups.items()]


def build_optimizer(
    learner: Learner,
    name: OptimizerName,
    learning_rate: float,
    weight_decay: float,
    layer_decay: float = 1.0,
    beta2: float = 0.999,
) -> torch.optim.Optimizer:
    """AdamW (β 0.9, ``beta2``) or SGD with Nesterov momentum 0.9, fused, over :func:`parameter_groups`."""
    groups = parameter_groups(learner, weight_decay, layer_decay)
    if name == "sgd":
        return torch.optim.SGD(groups, lr=learning_rate, momentum=0.9, nesterov=True, fused=True)
    return torch.optim.AdamW(groups, lr=learning_rate, betas=(0.9, beta2), fused=True)


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """Give every group ``learning_rate`` times its own scale."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate * group["scale"]
