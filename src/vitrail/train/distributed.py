"""Many processes as one: DDP and FSDP2 of torch, under ``torchrun``."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict, set_state_dict
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel


def rank() -> int:
    """This process's number, 0 where there is only one."""
    return dist.get_rank() if dist.is_initialized() else 0


def world() -> int:
    """The number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


@contextmanager
def process_group(device: torch.device) -> Iterator[torch.device]:
    """Join the other processes if ``torchrun`` started this one; yields the device that is this process's own."""
    if "TORCHELASTIC_RUN_ID" not in os.environ or dist.is_initialized():
        yield device
        return
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    dist.init_process_group("cuda:nccl,cpu:gloo" if device.type == "cuda" else "gloo")
    try:
        yield device
    finally:
        dist.destroy_process_group()


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


def mean(value: Tensor) -> float:
    """The mean of a number over all processes."""
    return average(value).item()


def average(values: Tensor) -> Tensor:
    """The mean of each of the values over all processes; without a gradient."""
    if world() == 1:
        return values.detach()
    total = values.detach().clone()
    dist.all_reduce(total)
    return total / world()


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(rows: Tensor) -> Tensor:
        parts = [torch.empty_like(rows) for _ in range(world())]
        dist.all_gather(parts, rows)
        return torch.cat(parts)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        ctx.rows = len(inputs[0])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total[rank() * ctx.rows : (rank() + 1) * ctx.rows]


def gather_rows(rows: Tensor) -> Tensor:
    """The rows ``(n, …)`` of all processes, in the order of their rank, ``(world · n, …)``.

    The gradient of each row is the sum of what it is in all processes, so that a mean over processes of what they
    compute of everything has the gradient that one process would have.
    """
    return rows if world() == 1 else _GatherRows.apply(rows.contiguous())


def share_buffers(module: nn.Module) -> None:
    """Give every process the first one's buffers, such as the statistics that BatchNorm takes of its own share."""
    if world() > 1:
        for buffer in module.buffers():
            dist.broadcast(buffer, src=0)


def any_process(flag: bool) -> bool:
    """Whether the flag is set in at least one process; the same answer everywhere."""
    if world() == 1:
        return flag
    total = torch.tensor(int(flag))
    dist.all_reduce(total, op=dist.ReduceOp.MAX)
    return bool(total.item())


def gather(value: Any) -> list[Any]:
    """The values of all processes, in the order of their rank, in every process."""
    if world() == 1:
        return [value]
    values: list[Any] = [None] * world()
    dist.all_gather_object(values, value)
    return values


def barrier() -> None:
    """Wait until every process is here."""
    if world() > 1:
        dist.barrier()


_WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)


def whole_state(learner: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[dict[str, Any], dict[str, Any]]:
    """Weights and optimizer state as plain tensors, also where they are sharded (then every process must call)."""
    return get_state_dict(learner, optimizer, options=_WHOLE)


def whole(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Each tensor in one piece on the CPU, also where it is sharded (then every process must call)."""
    return {name: (t.full_tensor() if isinstance(t, DTensor) else t).cpu() for name, t in tensors.items()}


def own_part(tensor: Tensor) -> Tensor:
    """This process's shard of a sharded tensor, a plain tensor as it is; shares its memory."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


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
