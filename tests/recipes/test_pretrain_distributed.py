"""Two processes pre-train as one does: the same masks, the same windows, the same losses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch.distributed as dist

pytestmark = pytest.mark.skipif(not dist.is_gloo_available(), reason="this build of PyTorch has no gloo")

TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
SMALL = ["width=32", "depth=2", "heads=2", "mlp=64"]
EVERY = ["--steps", "8", "--batch-size", "8", "--device", "cpu", "--precision", "float32"]
TEXT = "Whether the weather be fine, or whether the weather be not, we'll weather the weather.\n" * 40


def losses(folder: Path, *words: object, start: list[str]) -> list[float]:
    process = subprocess.run(
        [sys.executable, *start, "-m", "vitrail", "pretrain", *map(str, words), *EVERY, "--out", folder],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=180,
    )
    assert process.returncode == 0, process.stdout
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [record["loss"] for record in map(json.loads, lines)]


@pytest.mark.parametrize(("objective", "flags"), [("mae", []), ("next-token", ["--shard"])])
def test_the_losses_are_those_of_one_process(objective: str, flags: list[str], tmp_path: Path) -> None:
    (tmp_path / "book.txt").write_text(TEXT)
    words = {
        "mae": ["shapes:64", "--workers", "0", "--image-size", "16", "--options", "decoder_depth=1"],
        "next-token": [tmp_path / "book.txt", "--context", "16"],
    }[objective]
    words = [*words, "--objective", objective, "--config", *SMALL]
    one = losses(tmp_path / "one", *words, start=[])
    two = losses(tmp_path / "two", *words, *flags, start=TORCHRUN)
    assert one[-1] < one[0]
    assert two == pytest.approx(one, rel=1e-4)
