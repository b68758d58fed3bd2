"""Evaluate: how good a trained model is, class by class, and how far its scores can be trusted."""

from __future__ import annotations

import json
import time
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from tyro.conf import Positional

from vitrail import atomic
from vitrail.console import progress, say
from vitrail.data.dataset import open_dataset
from vitrail.data.loader import MAX_UNREADABLE, EvaluationBatches, UnreadableImages, default_workers, load_batches
from vitrail.data.source import Dataset, Relabelled, Source, SplitName
from vitrail.errors import DataError, SettingError
from vitrail.metrics import calibration, draw
from vitrail.metrics.classification import ClassificationMetric, LogitMetric, negative_log_likelihood
from vitrail.recipes import run
from vitrail.tasks.classification import Classification
from vitrail.train import distributed
from vitrail.train.precision import Precision, choose_device, choose_precision, products_in
from vitrail.weights.load import load


@dataclass(frozen=True)
class Evaluate:
    """Measure a trained model on held-out images: accuracy, each class, calibration; with pictures in RUN/plots.

    Examples:
      vitrail evaluate runs/clothing
      vitrail evaluate runs/clothing other-photos/ --json
    """

    run: Positional[Path]
    """The run's folder."""
    data: Positional[str | None] = None
    """Images to measure on; left out: those that training held back."""
    split: Literal["auto", "train", "validation", "test"] = "auto"
    """Which part of the data; auto is test where there is one, else validation."""
    format: str | None = None
    """How DATA is stored, where looking at it does not tell (see `vitrail info DATA`)."""
    batch_size: int = 64
    """Images computed at once; changes the speed only."""
    workers: int | None = None
    """Processes that read images; left out: chosen for the machine."""
    max_unreadable: float = MAX_UNREADABLE
    """Share of images that may be unreadable before this stops."""
    device: str = "auto"
    """cpu, cuda, mps, or auto for the best there is."""
    precision: Precision = "auto"
    """Format of matrix products; auto is bfloat16 where the machine has it."""
    json: bool = False
    """Print the figures as one JSON document."""


def evaluate(settings: Evaluate) -> dict[str, Any]:
    """Measure, draw into ``RUN/plots``, and write the figures to ``RUN/evaluation.json``; returns the figures."""
    task = load(settings.run)
    assert isinstance(task, Classification)
    split, source = held_out(settings, task)
    device = choose_device(settings.device)
    dtype = choose_precision(device, settings.precision)
    began = time.perf_counter()
    metric = measure(
        task.to(device),
        source,
        device,
        dtype,
        batch_size=settings.batch_size,
        workers=settings.workers,
        max_unreadable=settings.max_unreadable,
    )
    seconds = time.perf_counter() - began
    figures = report(task, metric) | {"split": split, "images_per_second": round(len(source) / seconds, 2)}
    draw_report(task, metric, figures, settings.run / "plots")
    atomic.write_text(settings.run / "evaluation.json", json.dumps(figures, indent=2, ensure_ascii=False) + "\n")
    if not settings.json:
        say(in_words(figures))
        say(f"pictures are in {settings.run / 'plots'}")
    return figures


def held_out(settings: Evaluate, task: Classification) -> tuple[SplitName, Source]:
    """The images to measure on, labelled by the task's own classes."""
    record = run.read(settings.run)["settings"]
    if settings.data is None:
        columns = {"image_column": record["image_column"], "label_column": record["label_column"]}
        dataset = open_dataset(record["data"], record["format"], seed=record["seed"], **columns)
    else:
        dataset = open_dataset(settings.data, settings.format, seed=record["seed"])
    split = settings.split
    if split == "auto":
        split = "test" if "test" in dataset.splits else "validation"
    if split not in dataset.splits:
        raise SettingError(f"{dataset.name} has no {split} split; it has {', '.join(dataset.splits)}.")
    return split, in_classes_of(task, dataset, dataset.splits[split])


def in_classes_of(task: Classification, dataset: Dataset, source: Source) -> Source:
    """``source`` with each label as the number that the model knows its class by.

    Raises :class:`DataError` if the data has a class that the model does not.
    """
    if dataset.many_labels != task.many_labels:
        kinds = ("one label", "many labels")
        raise DataError(
            f"{dataset.name} has {kinds[dataset.many_labels]} an image, the model gives {kinds[task.many_labels]}."
        )
    unknown = [name for name in dataset.classes if name not in task.classes]
    if unknown:
        raise DataError(
            f"the model does not know the class '{unknown[0]}' of {dataset.name}; "
            f"it knows: {', '.join(task.classes[:20])}{' …' if len(task.classes) > 20 else ''}."
        )
    if dataset.classes == task.classes:
        return source
    return Relabelled(source, [task.classes.index(name) for name in dataset.classes])


def measure(
    task: Classification,
    source: Source,
    device: torch.device,
    dtype: torch.dtype,
    *,
    batch_size: int = 64,
    workers: int | None = None,
    max_unreadable: float = MAX_UNREADABLE,
    what: str | None = "evaluating",
) -> LogitMetric:
    """The task's metric over all readable images of ``source``, shared among all processes.

    ``what`` names the work in the progress bar; None shows no bar.
    """
    batches = EvaluationBatches(
        source, len(task.classes), task.preprocess, batch_size, distributed.rank(), distributed.world()
    )
    workers = default_workers(len(source)) if workers is None else workers
    metric = task.metric()
    unreadable = UnreadableImages(len(source), max_unreadable)
    training = task.training
    task.eval()
    bar = progress(what, len(batches), unit="batch") if what else nullcontext(lambda done: None)
    with bar as advance:
        for done, (batch, numbers) in enumerate(load_batches(batches, 0, len(batches), workers), 1):
            unreadable.note(batch.unreadable)
            if len(batch):
                with torch.inference_mode(), products_in(dtype, device):
                    logits = task(batch.to(device).images)
                metric.update(logits.float().cpu(), batch.labels, numbers)
            advance(done)
    task.train(training)
    if distributed.world() > 1:
        metric.merge(distributed.gather(metric))
    return metric


def report(task: Classification, metric: LogitMetric) -> dict[str, Any]:
    """All figures of the metric, and what the task's fitted temperature makes of calibration."""
    figures = metric.compute()
    if isinstance(metric, ClassificationMetric):
        logits = metric.logits / task.temperature
        table = calibration.reliability(*calibration.top_class(logits, metric.targets))
        figures |= {
            "temperature": task.temperature,
            "ece_calibrated": calibration.expected_calibration_error(table),
            "nll_calibrated": negative_log_likelihood(logits, metric.targets),
        }
    return figures


def draw_report(task: Classification, metric: LogitMetric, figures: dict[str, Any], folder: Path) -> None:
    """Confusion matrix, reliability before and after the temperature, and each class's scores, as pictures."""
    draw.save(draw.per_class_bars(figures["per_class"]), folder / "per_class.png")
    if isinstance(metric, ClassificationMetric):
        draw.save(draw.confusion(np.array(figures["confusion"]), task.classes), folder / "confusion.png")
        tables = {
            name: calibration.reliability(*calibration.top_class(metric.logits / temperature, metric.targets))
            for name, temperature in (("as trained", 1.0), ("calibrated", task.temperature))
        }
        draw.save(draw.reliability_diagram(tables), folder / "reliability.png")


def in_words(figures: dict[str, Any]) -> str:
    """The main figures as a line or two."""
    if "top1" not in figures:
        return (
            f"{figures['images']} images of {figures['split']}: mAP {figures['map']:.2%}, "
            f"macro F1 {figures['macro_f1']:.2%}, micro F1 {figures['micro_f1']:.2%}"
        )
    return (
        f"{figures['images']} images of {figures['split']}: accuracy {figures['top1']:.2%}, "
        f"top-5 {figures['top5']:.2%}, macro F1 {figures['macro_f1']:.2%}\n"
        f"calibration error {figures['ece']:.2%}, with temperature {figures['temperature']:.3g} "
        f"{figures['ece_calibrated']:.2%}"
    )
