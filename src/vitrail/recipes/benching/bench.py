"""Bench: how fast models are on this machine, what they take, and how close that is to its limit."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from vitrail.bench.machine import Machine, machine
from vitrail.bench.memory import is_out_of_memory
from vitrail.bench.peak import best_rate
from vitrail.bench.process import in_new_process
from vitrail.console import progress, say
from vitrail.data.loader import TrainingBatches
from vitrail.data.preprocess import Preprocess
from vitrail.errors import SettingError, VitrailError
from vitrail.recipes.benching.model import Case, Cost, Mode, cost_of, measure
from vitrail.recipes.benching.pipeline import pipeline_speed, training_batches
from vitrail.recipes.benching.settings import Bench
from vitrail.recipes.benching.table import print_tables
from vitrail.recipes.settings import check_numbers
from vitrail.train.precision import choose_device, choose_precision

MODES: dict[str, tuple[Mode, ...]] = {
    "inference": ("inference",),
    "training": ("training",),
    "both": ("inference", "training"),
}


def bench(settings: Bench) -> dict[str, Any]:
    """All figures, as docs/bench.md tells them; a model that cannot be measured has its ``error`` instead.

    Raises what `cost_of` raises, before anything is measured, for a model or a size that cannot be.
    """
    check_numbers(settings)
    if not settings.models:
        raise SettingError("no model was given; name some of `vitrail models`, such as: vitrail bench vit-s16.")
    device = choose_device(settings.device)
    dtype = choose_precision(device, settings.precision)
    found = machine(device)
    cases = [(case, _counted(case)) for case in _cases(settings, device, dtype, found.threads)]
    batches = _batches(settings, [cost.preprocess for _, cost in cases])
    _warn_of_others(found)

    with progress("measuring", 1 + len(cases) + len(batches), unit="figure") as advance:
        advance(0, "the machine")
        peak = in_new_process(best_rate, dtype, device)
        results = []
        for done, (case, cost) in enumerate(cases, 1):
            advance(done, f"{case.model}, {case.mode}")
            results.append(_result(case, cost, peak))
        pipeline = []
        for done, each in enumerate(batches, 1 + len(cases)):
            advance(done, "reading images")
            pipeline.append(pipeline_speed(each, settings.seconds))
        advance(1 + len(cases) + len(batches))
    answer = {
        "machine": asdict(found),
        "device": str(device),
        "precision": str(dtype).removeprefix("torch."),
        "peak_flops_per_second": peak,
        "results": results,
        "data": settings.data,
        "pipeline": pipeline,
    }
    if not settings.json:
        print_tables(answer, found)
    return answer


def _cases(settings: Bench, device: torch.device, dtype: torch.dtype, threads: int) -> Iterator[Case]:
    for model in settings.models:
        modes = MODES[settings.mode]
        if model.endswith(".onnx") and settings.mode == "both":
            say(f"{model} answers and cannot learn: only its inference is measured.")
            modes = MODES["inference"]
        for mode in modes:
            yield Case(model, mode, settings.batch_size, settings.image_size, device, dtype, settings.seconds, threads)


def _batches(settings: Bench, seen: list[Preprocess]) -> list[TrainingBatches]:
    """Batches of the data for each size and number of channels that a model reads; none without data."""
    if settings.data is None:
        return []
    different = {(preprocess.size, preprocess.channels): preprocess for preprocess in seen}
    return [training_batches(settings.data, preprocess, settings.batch_size) for preprocess in different.values()]


def _result(case: Case, cost: Cost, peak: float) -> dict[str, Any]:
    """What is known of a case, and what was measured of it."""
    known = {
        "model": case.model,
        "mode": case.mode,
        "batch_size": case.batch_size,
        "image_size": list(cost.preprocess.size),
        "channels": cost.preprocess.channels,
        "parameters": cost.parameters,
        "flops": None if cost.flops is None else cost.flops // case.batch_size,
    }
    try:
        figures = _measured(case, cost)
    except VitrailError as error:
        say(f"vitrail: {error}")
        return known | {"error": str(error)}
    rate = figures["flops_per_second"]
    limit = figures["limit_flops_per_second"]
    shares = {
        "share_of_limit": rate / limit if rate and limit else None,
        "share_of_peak": rate / peak if rate else None,
    }
    say(f"{case.model}, {case.mode}: {figures['images_per_second']['median']:.1f} images/s")
    return known | figures | shares | {"error": None}


def _measured(case: Case, cost: Cost) -> dict[str, Any]:
    with TemporaryDirectory() as folder, _enough_memory(case):
        return in_new_process(measure, case, cost, Path(folder))


def _counted(case: Case) -> Cost:
    with _enough_memory(case):
        return cost_of(case)


@contextmanager
def _enough_memory(case: Case) -> Iterator[None]:
    """Within the context :class:`SettingError` is raised if there is not enough memory for a case."""
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise SettingError(
            f"a batch of {case.batch_size} images of {case.model} does not fit into the memory of {case.device}; "
            "give a smaller --batch-size."
        ) from error


def _warn_of_others(found: Machine) -> None:
    if found.busy is not None and found.busy > 0.3:
        say(f"other programs keep {found.busy:.1f} of {os.cpu_count()} cores busy: the figures will be too low.")
