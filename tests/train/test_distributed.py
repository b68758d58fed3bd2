"""Two processes train as one does: with copies of the weights (DDP) and with parts of them (FSDP2), over gloo."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch.distributed as dist

needs_gloo = pytest.mark.skipif(not dist.is_gloo_available(), reason="this build of PyTorch has no gloo")
either_way = pytest.mark.parametrize("flags", [[], ["--shard"]], ids=["copies", "shards"])

TRAIN = [  # with the stem that has no BatchNorm, whose statistics are those of a process's own part of the batch
    "train",
    "shapes:64",
    "--model",
    "vit-nano",
    "--config",
    "width=32",
    "depth=2",
    "heads=2",
    "mlp=64",
    "stem=patch",
    "--ema",
    "0.9",
    "--epochs",
    "4",
    "--batch-size",
    "8",
    "--workers",
    "0",
    "--device",
    "cpu",
    "--precision",
    "float32",
]
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]  # standalone: at a free port


def curve(folder: Path, key: str) -> list[float]:
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [record[key] for record in records if key in record]


@pytest.fixture(scope="module")
def one_process(complete, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "one"
    complete(*TRAIN, "--out", folder)
    return folder


@needs_gloo
@either_way
def test_the_loss_curve_is_that_of_one_process(complete, one_process, tmp_path, flags):
    complete(*TRAIN, *flags, "--out", tmp_path / "two", processes=2)
    loss = curve(one_process, "loss")
    assert len(loss) >= 20
    assert curve(tmp_path / "two", "loss") == pytest.approx(loss, rel=1e-4)
    assert curve(tmp_path / "two", "gradient_norm") == pytest.approx(curve(one_process, "gradient_norm"), rel=1e-3)
    assert curve(tmp_path / "two", "nll") == pytest.approx(curve(one_process, "nll"), rel=1e-4)


@needs_gloo
@either_way
def test_saving_and_resuming(tmp_path: Path, flags: list[str]) -> None:
    process = subprocess.run(
        [sys.executable, *TORCHRUN, Path(__file__).with_name("two_processes.py"), tmp_path, *flags],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=180,  # far more than is needed, even beside other tests
    )
    assert process.returncode == 0, process.stdout
