"""Pretrain: a network learns from images or text without labels, to be trained on something else later."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from vitrail import atomic
from vitrail.console import say
from vitrail.data.cache import limit_of
from vitrail.errors import SettingError, UnknownName
from vitrail.metrics import draw
from vitrail.objectives import IMAGE_OBJECTIVES, OBJECTIVES, TEXT_OBJECTIVES
from vitrail.recipes import run
from vitrail.recipes.adapt import parameters
from vitrail.recipes.evaluating.objective import in_words, mean_losses, measured
from vitrail.recipes.pretraining import images, text
from vitrail.recipes.pretraining.neighbours import neighbours
from vitrail.recipes.pretraining.prepared import Pretraining
from vitrail.recipes.pretraining.settings import Pretrain
from vitrail.recipes.resume import as_started
from vitrail.recipes.settings import check_numbers
from vitrail.train import distributed, sharding
from vitrail.train.log import read_log
from vitrail.train.loop import Plan, fit
from vitrail.train.precision import choose_device, choose_precision
from vitrail.train.threads import threads_for
from vitrail.weights.load import load
from vitrail.weights.save import save_description, save_weights


def pretrain(settings: Pretrain) -> dict[str, Any]:
    """Pretrain, or go on with a run; returns the figures on the part of the data that was held back."""
    check(settings)
    if settings.resume is not None:
        settings = as_started(settings, "pretrain", with_full_paths)
    with distributed.process_group(choose_device(settings.device)) as device:
        dtype = choose_precision(device, settings.precision)
        settings = with_full_paths(settings)
        if settings.resume is None and settings.out is not None:
            run.refuse_existing(Path(settings.out), settings.overwrite)  # before the data is looked through
        torch.manual_seed(settings.seed)
        prepare = images.prepare if settings.objective in IMAGE_OBJECTIVES else text.prepare
        begun = prepare(settings)
        folder = Path(
            settings.resume or settings.out or run.default_folder(str(settings.data), str(settings.objective))
        )
        if settings.resume is not None:
            run.refuse_other(begun.fingerprint, run.read(folder), folder)
            return learn(settings, begun, folder, device, dtype)
        say(begun.reason)
        run.start(folder, begun.record(settings, device, dtype), overwrite=settings.overwrite)
        with run.removed_after_mistake(folder):
            return learn(settings, begun, folder, device, dtype)


def check(settings: Pretrain) -> None:
    """Raises :class:`SettingError` or :class:`UnknownName` for settings that make no sense, whatever the data."""
    check_numbers(settings)
    if settings.resume is not None:
        return
    if settings.data is None:
        raise SettingError("no data was given: `vitrail pretrain DATA --objective mae`, or --resume RUN.")
    if settings.objective is None:
        raise SettingError(
            f"--objective says what is learned: of images {', '.join(IMAGE_OBJECTIVES)}; "
            f"of text {', '.join(TEXT_OBJECTIVES)}."
        )
    if settings.objective not in OBJECTIVES:
        raise UnknownName("objective", settings.objective, OBJECTIVES)
    if limit_of(settings.cache) and settings.objective not in IMAGE_OBJECTIVES:
        raise SettingError(f"--cache keeps images, and {settings.objective} learns from text; leave it out.")
    if settings.epochs is not None and settings.steps is not None:
        raise SettingError("--epochs and --steps both say how long to train; give one of them.")


def with_full_paths(settings: Pretrain) -> Pretrain:
    """``settings`` with the data by its full path, so that the run finds it from any folder."""
    return replace(settings, data=None if settings.data is None else run.absolute(settings.data))


def learn(
    settings: Pretrain, begun: Pretraining, folder: Path, device: torch.device, dtype: torch.dtype
) -> dict[str, Any]:
    """The run itself: train to the end, keep the best weights, then measure with these."""
    learner, began = begun.learner.to(device), time.perf_counter()
    say(f"{learner.model}, {parameters(learner)}, on {device} in {str(dtype).removeprefix('torch.')}")

    def keep() -> None:
        best = sharding.whole(learner.state_dict())
        if distributed.rank() == 0:
            save_weights(best, folder)

    if distributed.rank() == 0:
        save_description(learner, folder)
    try:
        with run.resumable("pretrain", folder), threads_for(begun.flops):
            state = fit(
                learner,
                begun.load,
                plan(settings, begun),
                validate=lambda: (
                    mean_losses(learner, begun.validation, device, dtype)
                    | neighbours(learner, begun.labelled, device, dtype)
                ),
                score=learner.score,
                lower_is_better=learner.lower_is_better,
                latest=learner.latest,
                keep=keep,
                after_step=learner.after_step,
                folder=folder,
                device=device,
                dtype=dtype,
                tensorboard=settings.log == "tensorboard",
            )
    except torch.OutOfMemoryError as error:
        raise SettingError(
            f"a batch of {begun.batch_size} does not fit into the memory of {device}; give a smaller --batch-size, or "
            "save memory with --accumulate or --recompute."
        ) from error
    say(f"best {learner.score} on validation {abs(state.best):.4f}, after step {state.best_step:,}")
    distributed.barrier()
    best = load(folder).to(device)
    figures = measured(best, begun.test, device, dtype) | {"split": begun.split}
    if distributed.rank() == 0:
        draw.save(draw.curves(read_log(folder / "metrics.jsonl")), folder / "plots" / "curves.png")
        atomic.write_text(folder / "evaluation.json", json.dumps(figures, indent=2) + "\n")
    distributed.barrier()
    say(in_words(figures))
    say(f"the run is in {folder}; use it: {begun.next_command.format(run=folder)}")
    return figures | {"run": str(folder), "seconds": round(time.perf_counter() - began, 1)}


def plan(settings: Pretrain, begun: Pretraining) -> Plan:
    """How to train, in steps; there are at least ten validations."""
    every = min(begun.steps_per_epoch, max(1, begun.steps // 10))
    return Plan(
        steps=begun.steps,
        steps_per_epoch=begun.steps_per_epoch,
        validate_every=every,
        learning_rate=settings.learning_rate,
        optimizer=settings.optimizer,
        beta2=settings.beta2 if settings.beta2 is not None else begun.learner.beta2,
        weight_decay=settings.weight_decay,
        warmup=round(settings.warmup_share * begun.steps),
        clip=settings.clip,
        accumulate=settings.accumulate,
        recompute=settings.recompute,
        log_every=max(1, every // 10),
        save_seconds=settings.save_seconds,
        shard=settings.shard,
        seed=settings.seed,
    )
