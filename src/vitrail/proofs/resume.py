"""The kill test: a run that is killed at any moments and resumed ends the same, to the last bit.

Real processes are killed with SIGKILL, which no program can notice: during start-up, between two steps, while a
checkpoint is being written, while the figures are drawn.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vitrail.console import say
from vitrail.data.dataset import open_dataset
from vitrail.errors import SettingError, VitrailError
from vitrail.proofs.proof import Proof
from vitrail.recipes.run import RECORD
from vitrail.train.state import STATE
from vitrail.weights.save import DESCRIPTION, WEIGHTS

TRIALS = 10
KILLS = 3  # in each trial; one of them while a checkpoint is being written
EPOCHS = 3
SETTINGS = ("--model", "vit-nano", "--ema", "0.99", "--device", "cpu", "--precision", "float32")


class Moment(NamedTuple):
    """When a process is killed: so many seconds after it was started, or at the first checkpoint written after that."""

    seconds: float
    saving: bool = False


def prove(data: Path | None, out: Path, seed: int = 0) -> Proof:
    """The share of trials that end like the run that nobody killed; the baseline has the weights, without the state."""
    proof = Proof("resume", "runs killed and resumed that end bit-equal", measured=None, baseline=None, bar=1.0)
    try:
        open_dataset("digits")
    except SettingError as error:
        return replace(proof, reason=str(error))
    began = time.perf_counter()
    forget(out / "reference")
    if finish(out / "reference") != 0:
        raise VitrailError(f"the run that nobody kills has failed; {out / 'reference.log'} says why.")
    seconds = time.perf_counter() - began

    def ends_equal(number: int) -> bool:
        folder = out / f"trial-{number}"
        interrupt(folder, random_moments(random.Random(TRIALS * seed + number), seconds))
        finish(folder)
        different = differences(out / "reference", folder)
        say(f"resume: trial {number}: {'different: ' + ', '.join(different) if different else 'equal'}")
        return not different

    with ThreadPoolExecutor(max_workers=2) as pool:  # threads that only wait for the processes they started
        equal = list(pool.map(ends_equal, range(TRIALS)))
    weights = read_bytes(started_from_weights(out) / WEIGHTS)
    return replace(
        proof,
        measured=sum(equal) / TRIALS,
        baseline=float(weights == read_bytes(out / "reference" / WEIGHTS)),
        seconds=time.perf_counter() - began,
    )


def random_moments(chance: random.Random, seconds: float) -> list[Moment]:
    """Moments of a trial, anywhere in a run that takes ``seconds``."""
    saving = chance.randrange(KILLS)
    return [Moment(chance.uniform(0, seconds), saving=number == saving) for number in range(KILLS)]


def interrupt(folder: Path, moments: Sequence[Moment]) -> None:
    """Start the run anew, and kill it at each of the moments; after each but the last it goes on."""
    forget(folder)
    for moment in moments:
        before = checkpoints_in_the_making(folder)
        process = launch(folder)
        wait(process, moment.seconds)
        while moment.saving and process.poll() is None and checkpoints_in_the_making(folder) <= before:
            wait(process, 0.001)
        process.kill()
        process.wait()


def forget(folder: Path) -> None:
    """Remove what an earlier proof left."""
    if (folder / RECORD).exists():
        shutil.rmtree(folder)


def finish(folder: Path) -> int:
    """Start the run, or go on with it, to its end; returns the exit status."""
    return launch(folder).wait()


def launch(folder: Path, epochs: int = EPOCHS, weights: str = "none") -> subprocess.Popen[bytes]:
    """A process that starts the run in ``folder``, or goes on with it where there is one; its words go to a file."""
    words = ["digits", *SETTINGS, "--epochs", str(epochs), "--weights", weights, "--out", str(folder), "--overwrite"]
    if (folder / RECORD).exists():
        words = ["--resume", str(folder)]
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "vitrail", "train", *words, "--save-seconds", "0.2"],
            stdout=log,
            stderr=log,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )


def wait(process: subprocess.Popen[bytes], seconds: float) -> None:
    """Until the process ends, but at most so long."""
    try:
        process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        return


def checkpoints_in_the_making(folder: Path) -> set[Path]:
    """Temporary files beside the checkpoint: the one being written, and those of processes killed while they wrote."""
    state = folder / STATE
    return set(state.parent.glob(f".{state.name}.*"))


def differences(one: Path, other: Path) -> list[str]:
    """What is not the same in two finished runs, to the last bit."""
    files = (WEIGHTS, DESCRIPTION, "metrics.jsonl", "evaluation.json")
    different = [name for name in files if read_bytes(one / name) != read_bytes(other / name)]
    if not (other / STATE).exists():
        return [*different, STATE]
    states = [torch.load(folder / STATE, weights_only=True) for folder in (one, other)]
    return different + [f"{STATE}: {key}" for key in states[0] if not bit_equal(states[0][key], states[1].get(key))]


def read_bytes(path: Path) -> bytes | None:
    """What is in a file, None if there is none."""
    return path.read_bytes() if path.exists() else None


def bit_equal(a: Any, b: Any) -> bool:
    """Whether two values, nested in dictionaries and sequences, are the same; tensors to the last bit."""
    if isinstance(a, Tensor):
        same_kind = isinstance(b, Tensor) and a.dtype == b.dtype and a.shape == b.shape
        return same_kind and a.numpy().tobytes() == b.numpy().tobytes()
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(bit_equal(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):  # torch makes a list of AdamW's pair of betas when it restores them
        return isinstance(b, list | tuple) and len(a) == len(b) and all(map(bit_equal, a, b))
    return bool(a == b)


def started_from_weights(out: Path) -> Path:
    """What is left to do without a saved state: a new run from a killed one's weights, for the epochs that remain."""
    killed, anew = out / "killed", out / "anew"
    forget(killed)
    forget(anew)
    process = launch(killed)
    while process.poll() is None and not epochs_done(killed):
        wait(process, 0.01)
    process.kill()
    process.wait()
    launch(anew, EPOCHS - epochs_done(killed), weights=str(killed)).wait()
    return anew


def epochs_done(folder: Path) -> int:
    """How many epochs a run has validated."""
    log = read_bytes(folder / "metrics.jsonl") or b""
    return log.count(b'"kind": "validation"')
