"""What two processes do for test_distributed.py: torchrun starts this file, with a folder and perhaps ``--shard``."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitrail.data.sample import Batch
from vitrail.proofs.resume import bit_equal
from vitrail.train import checkpoint, distributed, sharding
from vitrail.train.ema import Ema
from vitrail.train.loop import Plan, fit
from vitrail.train.optim import build_optimizer
from vitrail.train.state import STATE, State


class Tiny(nn.Module):
    """A learner of two blocks: with dropout, which needs the seeds of each process, and with BatchNorm's statistics."""

    depth = 1

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6))
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Dropout(0.1)) for _ in range(2))
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = x + block(x)
        return self.head(x)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        return {"loss": F.cross_entropy(self(batch.images), batch.labels)}

    def layer(self, name: str) -> int:
        return int(name.startswith("head"))


def batch(step: int) -> Batch:
    """This process's half of batch ``step``."""
    random = torch.Generator().manual_seed(step)
    images, labels = torch.randn(8, 6, generator=random), torch.randint(3, (8,), generator=random)
    mine = slice(4 * distributed.rank(), 4 * distributed.rank() + 4)
    return Batch(images[mine], ("",) * 4, F.one_hot(labels, 3).float()[mine])


def fit_tiny(folder: Path, shard: bool, crash_at: int | None = None) -> Tiny:
    """12 steps, with a checkpoint after each; or as many as there are before the crash."""
    learner = Tiny()

    def load(start: int, stop: int) -> Iterator[Batch]:
        for step in range(start, stop):
            if step == crash_at:
                raise ConnectionResetError
            yield batch(step)

    def validate() -> dict[str, float]:
        with torch.inference_mode():
            return {"score": distributed.mean(-F.cross_entropy(learner(batch(100).images), batch(100).labels))}

    plan = Plan(12, 4, 0.05, warmup=2, ema=0.9, log_every=1, save_seconds=0, shard=shard)
    fit(
        learner,
        load,
        plan,
        validate=validate,
        score="score",
        keep=lambda: None,
        folder=folder,
        device=torch.device("cpu"),
    )
    return learner


def resume_and_compare(folder: Path, shard: bool) -> None:
    for name in ("whole", "resumed"):
        (folder / name).mkdir(exist_ok=True)
    fit_tiny(folder / "whole", shard)
    with pytest.raises(ConnectionResetError):
        fit_tiny(folder / "resumed", shard, crash_at=7)
    fit_tiny(folder / "resumed", shard)
    logs = [(folder / name / "metrics.jsonl").read_bytes() for name in ("whole", "resumed")]
    assert logs[0] == logs[1]
    assert logs[0].count(b"\n") == 12 + 3
    states = [torch.load(folder / name / STATE, weights_only=True) for name in ("whole", "resumed")]
    assert states[0]["world"] == 2
    assert bit_equal(states[0], states[1])


def save_and_restore(folder: Path, shard: bool) -> None:
    learner, optimizer, ema = trained(shard, steps=3)
    checkpoint.save(folder, State(step=3, best=0.5), learner, optimizer, ema)
    other, other_optimizer, other_ema = trained(shard, steps=1)
    state = checkpoint.restore(folder, other, other_optimizer, other_ema)
    assert state == State(step=3, best=0.5)
    assert bit_equal(everything(other, other_optimizer, other_ema), everything(learner, optimizer, ema))
    assert not bit_equal(everything(*trained(shard, steps=1)), everything(learner, optimizer, ema))
    whole = sharding.whole(learner.state_dict())
    assert {name: value.shape for name, value in whole.items()} == {n: v.shape for n, v in Tiny().state_dict().items()}


def trained(shard: bool, steps: int) -> tuple[Tiny, torch.optim.Optimizer, Ema]:
    learner = Tiny()
    loss_of = sharding.parallel_loss(learner, shard)
    optimizer = build_optimizer(learner, "adamw", 0.01, 0.05)
    ema = Ema(learner, 0.9)
    for step in range(steps):
        loss_of(batch(step))["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
        ema.update(learner, step + 1)
    return learner, optimizer, ema


def everything(learner: nn.Module, optimizer: torch.optim.Optimizer, ema: Ema) -> Any:
    """What the first process saves."""
    mine = [*sharding.whole_state(learner, optimizer), sharding.whole(ema.weights)]
    return distributed.gather(mine)[0]


def exchange(folder: Path, shard: bool) -> None:
    mine = distributed.rank()
    assert distributed.mean(torch.tensor(float(mine))) == 0.5
    assert distributed.any_process(mine == 1)
    assert not distributed.any_process(False)
    assert distributed.gather({"rank": mine}) == [{"rank": 0}, {"rank": 1}]


if __name__ == "__main__":
    with distributed.process_group(torch.device("cpu")):
        for check in (exchange, save_and_restore, resume_and_compare):
            check(Path(sys.argv[1]), "--shard" in sys.argv)
            distributed.barrier()
