"""Two processes pre-train as one does: the same masks, the same windows, the same losses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch.distributed as dist

pytestmark = pytest.mark.skipif(not dist.is_gloo_available(), reason="this build of PyTorch has no gloo")

SMALL = ["width=32", "depth=2", "heads=2", "mlp=64"]
EVERY = ["--steps", "8", "--batch-size", "8", "--device", "cpu", "--precision", "float32"]
TEXT = "Whether the weather be fine, or whether the weather be not, we'll weather the weather.\n" * 40


def losses(folder: Path) -> list[float]:
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [record["loss"] for record in map(json.loads, lines)]


@pytest.mark.parametrize(("objective", "flags"), [("mae", []), ("next-token", ["--shard"])])
def test_the_losses_are_those_of_one_process(complete, objective, flags, tmp_path):
    (tmp_path / "book.txt").write_text(TEXT)
    words = {
        "mae": ["shapes:64", "--workers", "0", "--image-size", "16", "--options", "decoder_depth=1"],
        "next-token": [tmp_path / "book.txt", "--context", "16"],
    }[objective]
    words = ["pretrain", *words, "--objective", objective, "--config", *SMALL, *EVERY]
    complete(*words, "--out", tmp_path / "one")
    complete(*words, *flags, "--out", tmp_path / "two", processes=2)
    one, two = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert one[-1] < one[0]
    assert two == pytest.approx(one, rel=1e-4)
