"""Many processes as one, under ``torchrun``."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


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


def own_part(tensor: Tensor) -> Tensor:
    """This process's shard of a sharded tensor, a plain tensor as it is; shares its memory."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor  # a DTensor, whose module takes long to import
