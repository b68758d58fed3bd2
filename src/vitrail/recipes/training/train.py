"""Train: from a folder of images to a run's folder with the best weights, the figures and the pictures."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from vitrail import atomic
from vitrail.console import say
from vitrail.data.cache import cached
from vitrail.data.loader import UnreadableImages, default_workers, load_batches
from vitrail.data.sample import Batch
from vitrail.data.source import SplitName
from vitrail.errors import SettingError
from vitrail.metrics import calibration, draw
from vitrail.metrics.classification import ClassificationMetric, LogitMetric
from vitrail.nn.lora import merged
from vitrail.recipes import run
from vitrail.recipes.adapt import parameters
from vitrail.recipes.costs import forward_flops
from vitrail.recipes.evaluating.evaluate import draw_report, in_words, measure, report
from vitrail.recipes.resume import as_started
from vitrail.recipes.training import choose_text, text
from vitrail.recipes.training.choose import Choice
from vitrail.recipes.training.choose_text import TextChoice
from vitrail.recipes.training.settings import Train
from vitrail.recipes.training.start import Start, check, resumed, started, training_batches, with_full_paths
from vitrail.tasks import TEXT_TASKS
from vitrail.tasks.classification import Classification
from vitrail.train import distributed, sharding
from vitrail.train.log import read_log
from vitrail.train.loop import Plan, fit
from vitrail.train.precision import choose_device, choose_precision
from vitrail.train.threads import threads_for
from vitrail.weights.load import load
from vitrail.weights.save import save_description, save_weights


def train(settings: Train) -> dict[str, Any]:
    """Train, or go on with a run; returns the figures on the test split (or validation, where there is no test)."""
    check(settings)
    if settings.resume is None:
        choose_text.check(settings)
    else:
        settings = as_started(settings, "train", with_full_paths)
    with distributed.process_group(choose_device(settings.device)) as device:
        dtype = choose_precision(device, settings.precision)
        if settings.task in TEXT_TASKS:
            return on_text(settings, device, dtype)
        if settings.resume is not None:
            return learn(resumed(settings), device, dtype)
        start = started(settings, device, dtype)
        with run.removed_after_mistake(start.folder):
            return learn(start, device, dtype)


def on_text(settings: Train, device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    """The same for a task of text."""
    start = text.begin(settings, device, dtype)
    with run.removed_after_mistake(start.folder):
        return text.learn(start, plan(settings, start.choice, start.batches.steps_per_epoch), device, dtype)


def learn(start: Start, device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    """The run itself: train to the end, keep the best weights, then measure with these."""
    settings, dataset, choice, task, learner, folder = start
    dataset = cached(dataset, settings.cache)
    began = time.perf_counter()
    learner.to(device)
    say(f"{choice.model}, {parameters(task)}, on {device} in {str(dtype).removeprefix('torch.')}")

    batches = training_batches(settings, dataset, choice, task)
    workers = default_workers(len(batches.source)) if settings.workers is None else settings.workers
    unreadable = {split: UnreadableImages(len(of), settings.max_unreadable) for split, of in dataset.splits.items()}

    def load_training(start: int, stop: int) -> Iterator[Batch]:
        for batch in load_batches(batches, start, stop, workers):
            unreadable["train"].note(batch.unreadable)
            yield batch

    def measured(task: Classification, split: SplitName, **options: Any) -> LogitMetric:
        source = dataset.splits[split]
        return measure(task, source, device, dtype, unreadable[split], workers=settings.workers, **options)

    def validate() -> dict[str, float]:
        figures = measured(task, "validation", through=learner).compute()
        return {key: figures[key] for key in (task.score, "macro_f1", "nll", "ece")}

    def keep() -> None:
        best = merged(task, sharding.whole(task.state_dict()))
        if distributed.rank() == 0:
            save_weights(best, folder)

    if distributed.rank() == 0:
        save_description(task, folder)
    try:
        flops = choice.batch_size / batches.world * forward_flops(choice.model, **choice.changes)
        with run.resumable("train", folder), threads_for(flops):
            state = fit(
                learner,
                load_training,
                plan(settings, choice, batches.steps_per_epoch),
                validate=validate,
                score=task.score,
                keep=keep,
                folder=folder,
                device=device,
                dtype=dtype,
                tensorboard=settings.log == "tensorboard",
            )
    except torch.OutOfMemoryError as error:
        raise SettingError(
            f"a batch of {choice.batch_size} images does not fit into the memory of {device}; give a smaller "
            "--batch-size, or save memory with --accumulate or --recompute."
        ) from error
    score = {"top1": "accuracy", "map": "mean average precision"}[task.score]
    say(f"best {score} on validation {state.best:.2%}, after epoch {state.best_step // batches.steps_per_epoch}")
    figures = finish(folder, "test" if "test" in dataset.splits else "validation", device, measured)
    return figures | {"run": str(folder), "seconds": round(time.perf_counter() - began, 1)}


def plan(settings: Train, choice: Choice | TextChoice, steps_per_epoch: int) -> Plan:
    """Epochs as steps."""
    return Plan(
        steps=choice.epochs * steps_per_epoch,
        steps_per_epoch=steps_per_epoch,
        learning_rate=choice.learning_rate,
        optimizer=settings.optimizer,
        weight_decay=settings.weight_decay,
        warmup=round(choice.warmup_epochs * steps_per_epoch),
        layer_decay=choice.layer_decay,
        clip=settings.clip,
        accumulate=settings.accumulate,
        recompute=settings.recompute,
        ema=settings.ema,
        patience=settings.patience,
        log_every=max(1, steps_per_epoch // 10),
        save_seconds=settings.save_seconds,
        shard=settings.shard,
        seed=settings.seed,
    )


def finish(
    folder: Path, split: SplitName, device: torch.device, measured: Callable[..., LogitMetric]
) -> dict[str, Any]:
    """With the best weights: fit the temperature, measure on held-out images, draw; each process measures its share."""
    distributed.barrier()
    task = load(folder).to(device)
    assert isinstance(task, Classification)
    validation = measured(task, "validation")
    if isinstance(validation, ClassificationMetric):
        task.temperature = round(calibration.fit_temperature(validation.logits, validation.targets), 4)
    metric = measured(task, split, what="evaluating") if split != "validation" else validation
    figures = report(task, metric) | {"split": split}
    if distributed.rank() == 0:
        save_description(task, folder)
        draw.save(draw.curves(read_log(folder / "metrics.jsonl")), folder / "plots" / "curves.png")
        draw_report(task, metric, figures, folder / "plots")
        atomic.write_text(folder / "evaluation.json", json.dumps(figures, indent=2, ensure_ascii=False) + "\n")
    distributed.barrier()  # no process leaves the group while another still works
    say(in_words(figures))
    say(f"the run is in {folder}, its pictures in {folder / 'plots'}")
    return figures
