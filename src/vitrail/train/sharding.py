"""One learner on many processes: a copy on each (DDP), or its weights spread over them (FSDP2).

Apart from `distributed`, for what this imports takes a second.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict, set_state_dict
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from vitrail.train.distributed import world


class Loss(nn.Module):
    """A learner's loss as a module's forward, which is what DDP hooks into."""

    def __init__(self, learner: nn.Module) -> None:
        super().__init__()
        self.learner = learner

    def forward(self, batch: Any) -> dict[str, Tensor]:
        return self.learner.loss(batch)  # type: ignore[operator]


def shard(learner: nn.Module) -> None:
    """Spread the parameters over the processes (FSDP2): each block of every ModuleList by itself, then the rest.

    Both the learner's forward and its loss gather what they need.
    """
    for module in list(learner.modules()):
        if isinstance(module, nn.ModuleList):
            for block in module:
                fully_shard(block)
    fully_shard(learner)
    register_fsdp_forward_method(learner, "loss")


def parallel_loss(learner: nn.Module, sharded: bool) -> Callable[[Any], dict[str, Tensor]]:
    """A function that computes ``learner.loss`` and averages gradients over all processes.

    Sharding replaces the learner's parameters, so that the optimizer must be built afterwards.
    """
    if sharded:
        shard(learner)
        return learner.loss  # type: ignore[return-value]
    return DistributedDataParallel(Loss(learner)) if world() > 1 else learner.loss  # type: ignore[return-value]


_WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)


def whole_state(learner: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[dict[str, Any], dict[str, Any]]:
    """Weights and optimizer state as plain tensors, also where they are sharded (then every process must call)."""
    return get_state_dict(learner, optimizer, options=_WHOLE)


def whole(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Each tensor in one piece on the CPU, also where it is sharded (then every process must call)."""
    return {name: (t.full_tensor() if isinstance(t, DTensor) else t).cpu() for name, t in tensors.items()}


def like(tensor: Tensor, example: Tensor) -> Tensor:
    """``tensor``, sharded and placed as ``example`` is."""
    if isinstance(example, DTensor):
        return distribute_tensor(tensor.to(example.device), example.device_mesh, example.placements)
    return tensor.to(example.device)


def set_whole_state(
    learner: nn.Module, optimizer: torch.optim.Optimizer, weights: dict[str, Any], optimizer_state: dict[str, Any]
) -> None:
    """The inverse of :func:`whole_state`."""
    set_state_dict(learner, optimizer, model_state_dict=weights, optim_state_dict=optimizer_state, options=_WHOLE)
