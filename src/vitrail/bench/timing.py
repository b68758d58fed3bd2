"""How long work takes: every repeat by itself, several works in turns, warm-up and garbage collection left out."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

WARM_UP = 3  # calls that are not counted: caches fill, kernels are chosen, clocks go up
LEAST = 5  # repeats, however long they take
A_TURN = 0.05  # seconds of queued work on an accelerator, beside which waiting for its end is nothing

Work = Callable[[], object]


@dataclass(frozen=True)
class Spread:
    """The median of repeats, and the quartiles below and above it."""

    median: float
    low: float
    high: float
    repeats: int


def spread(values: Sequence[float]) -> Spread:
    """Median and quartiles of some numbers, interpolated as `numpy.percentile` does."""
    low, median, high = np.percentile(values, [25, 50, 75])
    return Spread(float(median), float(low), float(high), len(values))


def seconds_of(
    work: Work, seconds: float, device: torch.device, *, least: int = LEAST, one_by_one: bool = False
) -> list[float]:
    """Seconds of each call of ``work``; arguments as of `in_turns`."""
    return in_turns({"": work}, seconds, device, least=least, one_by_one=one_by_one)[""]


def in_turns(
    works: Mapping[str, Work], seconds: float, device: torch.device, *, least: int = LEAST, one_by_one: bool = False
) -> dict[str, list[float]]:
    """Seconds of each call of several works, which take turns so that the machine's moods meet all of them alike.

    Args:
        works: what is measured, by name.
        seconds: how long to go on for each of them.
        device: where they compute; each turn ends when it has.
        least: turns of each, however long they take.
        one_by_one: whether every call is waited for. By default the calls of a turn on an accelerator are queued, as
            in real work, and share the turn's time equally.
    """
    calls = {name: _warmed_up(work, device, one_by_one) for name, work in works.items()}
    times: dict[str, list[float]] = {name: [] for name in works}
    names = list(works)
    with undisturbed():
        end = time.perf_counter() + seconds * len(names)
        while len(times[names[-1]]) < least or time.perf_counter() < end:
            for name in names:
                times[name].append(_turn(works[name], calls[name], device))
            names.append(names.pop(0))  # nobody is always the first
    return times


@contextmanager
def undisturbed() -> Iterator[None]:
    """Within the context Python's garbage collector does not run."""
    running = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if running:
            gc.enable()


def wait_for(device: torch.device) -> None:
    """Return when all that was asked of the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def _turn(work: Work, calls: int, device: torch.device) -> float:
    """Seconds of a call, when there are so many."""
    began = time.perf_counter()
    for _ in range(calls):
        work()
    wait_for(device)
    return (time.perf_counter() - began) / calls


def _warmed_up(work: Work, device: torch.device, one_by_one: bool) -> int:
    """Call the work until it is warm; returns how many calls make a turn."""
    for _ in range(WARM_UP):
        last = _turn(work, 1, device)
    return 1 if one_by_one or device.type == "cpu" else max(1, math.ceil(A_TURN / last))
