"""Runs in real processes that are killed or asked to stop, and must end as if nothing had happened."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path
from typing import NamedTuple

import pytest

from vitrail.proofs.resume import differences

pytest.importorskip("sklearn", reason="the digits come with scikit-learn")

RUN = [
    *("digits", "--model", "vit-nano", "--config", "width=32", "depth=2", "heads=2", "mlp=64", "drop_path=0.1"),
    *("--epochs", "3", "--batch-size", "32", "--ema", "0.9", "--device", "cpu", "--precision", "float32"),
]
ALONE = ["--workers", "0", "--save-seconds", "0.05"]  # one process, which saves often
PATIENCE = 120  # seconds; far more than is needed, even beside other tests


class Run(NamedTuple):
    folder: Path
    seconds: float


def wait_until_it_trains(process, folder):
    log = folder / "metrics.jsonl"
    deadline = time.monotonic() + PATIENCE
    while not (log.exists() and log.stat().st_size):
        assert process.running(), process.end()
        assert time.monotonic() < deadline, "it did not begin to train"
        time.sleep(0.005)


@pytest.fixture(scope="module")
def reference(complete, tmp_path_factory):
    """The run that nobody disturbs."""
    folder = tmp_path_factory.mktemp("runs") / "reference"
    began = time.monotonic()
    complete("train", *RUN, *ALONE, "--out", folder)
    return Run(folder, time.monotonic() - began)


@pytest.mark.parametrize("seed", [0, 1])
def test_killed_at_random_moments(launch, complete, reference, tmp_path, seed):
    folder = tmp_path / "run"
    moments = random.Random(seed)
    for _ in range(2):
        words = ["--resume", folder] if (folder / "run.json").exists() else [*RUN, "--out", folder, "--overwrite"]
        process = launch("train", *words, *ALONE)
        time.sleep(moments.uniform(0.3, 1) * reference.seconds)
        process.kill()
        process.end()
    complete("train", "--resume", folder, *ALONE)
    assert differences(reference.folder, folder) == []


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_asked_to_stop(launch, complete, reference, tmp_path, number, status):
    folder = tmp_path / "run"
    process = launch("train", *RUN, "--workers", 2, "--out", folder)
    wait_until_it_trains(process, folder)
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # as Ctrl-C does: the processes that read images get it, too
    else:
        os.kill(process.pid, number)
    said = process.end()
    assert process.status == status, said
    assert "all is saved" in said
    assert "Traceback" not in said
    complete("train", "--resume", folder)
    assert differences(reference.folder, folder) == []


@pytest.mark.parametrize("workers", [1, 4])
def test_the_number_of_workers_changes_nothing(complete, reference, tmp_path, workers):
    complete("train", *RUN, "--workers", workers, "--out", tmp_path / "run")
    log = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    assert log.count(b"\n") > 3
    assert log == (reference.folder / "metrics.jsonl").read_bytes()


def test_a_finished_run_is_left_as_it_is(complete, reference):
    before = {path: path.read_bytes() for path in reference.folder.rglob("*") if path.is_file()}
    said = complete("train", "--resume", reference.folder)
    assert "finished" in said
    assert {path: path.read_bytes() for path in reference.folder.rglob("*") if path.is_file()} == before
