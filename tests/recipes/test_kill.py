"""Runs in real processes that are killed or asked to stop, and must end as if nothing had happened."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
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


def launch(*words: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "vitrail", "train", *map(str, words)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # a process group of its own, as a terminal gives it
    )


def end(process: subprocess.Popen[str]) -> str:
    """Wait for the end; what the process said."""
    _, said = process.communicate(timeout=PATIENCE)
    return said


def complete(*words: object) -> str:
    """Run to the end; what it said."""
    process = launch(*words)
    said = end(process)
    assert process.returncode == 0, said
    return said


def wait_until_it_trains(process: subprocess.Popen[str], folder: Path) -> None:
    log = folder / "metrics.jsonl"
    deadline = time.monotonic() + PATIENCE
    while not (log.exists() and log.stat().st_size):
        assert process.poll() is None, end(process)
        assert time.monotonic() < deadline, "it did not begin to train"
        time.sleep(0.005)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The run that nobody disturbs."""
    folder = tmp_path_factory.mktemp("runs") / "reference"
    began = time.monotonic()
    complete(*RUN, *ALONE, "--out", folder)
    return Run(folder, time.monotonic() - began)


@pytest.mark.parametrize("seed", [0, 1])
def test_killed_at_random_moments(reference: Run, tmp_path: Path, seed: int) -> None:
    folder = tmp_path / "run"
    moments = random.Random(seed)
    for _ in range(2):
        words = ["--resume", folder] if (folder / "run.json").exists() else [*RUN, "--out", folder, "--overwrite"]
        process = launch(*words, *ALONE)
        time.sleep(moments.uniform(0.3, 1) * reference.seconds)
        process.kill()
        end(process)
    complete("--resume", folder, *ALONE)
    assert differences(reference.folder, folder) == []


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_asked_to_stop(reference: Run, tmp_path: Path, number: signal.Signals, status: int) -> None:
    folder = tmp_path / "run"
    process = launch(*RUN, "--workers", 2, "--out", folder)
    wait_until_it_trains(process, folder)
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # as Ctrl-C does: the processes that read images get it, too
    else:
        process.send_signal(number)
    said = end(process)
    assert process.returncode == status, said
    assert "all is saved" in said
    assert "Traceback" not in said
    complete("--resume", folder)
    assert differences(reference.folder, folder) == []


@pytest.mark.parametrize("workers", [1, 4])
def test_the_number_of_workers_changes_nothing(reference: Run, tmp_path: Path, workers: int) -> None:
    complete(*RUN, "--workers", workers, "--out", tmp_path / "run")
    log = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    assert log.count(b"\n") > 3
    assert log == (reference.folder / "metrics.jsonl").read_bytes()


def test_a_finished_run_is_left_as_it_is(reference: Run) -> None:
    before = {path: path.read_bytes() for path in reference.folder.rglob("*") if path.is_file()}
    said = complete("--resume", reference.folder)
    assert "finished" in said
    assert {path: path.read_bytes() for path in reference.folder.rglob("*") if path.is_file()} == before
