"""Evaluate: how good a trained model is, class by class, and how far its scores can be trusted."""

from __future__ import annotations

import json
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from vitrail import atomic
from vitrail.console import progress, say
from vitrail.data.cache import cached_source, limit_of
from vitrail.data.dataset import open_dataset
from vitrail.data.loader import UnreadableImages, default_workers, load_batches
from vitrail.data.proportions import PackedBatch, Proportions
from vitrail.data.source import Dataset, Relabelled, Source, SplitName
from vitrail.errors import DataError, RunError, SettingError
from vitrail.metrics import calibration, draw
from vitrail.metrics.classification import ClassificationMetric, LogitMetric, negative_log_likelihood
from vitrail.nn.inference import ready
from vitrail.objectives import Objective
from vitrail.recipes import run
from vitrail.recipes.evaluating.objective import evaluate_objective
from vitrail.recipes.evaluating.probe import probe
from vitrail.recipes.evaluating.settings import Evaluate
from vitrail.recipes.evaluating.text import evaluate_text
from vitrail.recipes.opened import open_model
from vitrail.recipes.packing import batches_of, packed_logits, packing
from vitrail.recipes.settings import check_numbers
from vitrail.tasks import TextTask
from vitrail.tasks.classifier import Classifier
from vitrail.train import distributed
from vitrail.train.precision import choose_device, choose_precision, products_in


def evaluate(settings: Evaluate) -> dict[str, Any]:
    """Measure; draw and write `evaluation.json` in the run's folder, or in ``out``. Returns the figures."""
    check_numbers(settings)
    limit_of(settings.cache)
    if settings.pack and settings.cache != "none":
        raise SettingError("--cache keeps images of one size, which --pack does not make; leave one of them out.")
    if settings.probe != "none":
        if settings.merge:
            raise SettingError("--probe measures the features of the whole model; leave --merge out.")
        return probe(settings)
    folder = Path(settings.run)
    task = open_model(settings.run, settings.stated, settings.merge)
    proportions = packing(settings, task)
    if isinstance(task, Objective):
        return evaluate_objective(settings, task)
    if isinstance(task, TextTask):
        if settings.cache != "none":
            raise SettingError(f"--cache keeps images, and {settings.run} is a model of text; leave it out.")
        return evaluate_text(settings, task)
    assert isinstance(task, Classifier)
    split, source = held_out(settings, task)
    device = choose_device(settings.device)
    dtype = choose_precision(device, settings.precision)
    began = time.perf_counter()
    metric = measure(
        ready(task.to(device), dtype),
        source,
        device,
        dtype,
        UnreadableImages(len(source), settings.max_unreadable),
        batch_size=settings.batch_size,
        workers=settings.workers,
        what="evaluating",
        proportions=proportions,
    )
    seconds = time.perf_counter() - began
    figures = report(task, metric) | {"split": split, "images_per_second": round(len(source) / seconds, 2)}
    figures |= {"merge": settings.merge} if settings.merge else {}
    if proportions is not None:
        figures["packed"] = {"tokens": proportions.tokens or proportions.own}
    if not settings.json:
        say(in_words(figures))
    out = settings.out or (figures_of(folder, settings.merge, proportions) if settings.data is None else None)
    if out is None:
        return figures
    try:
        draw_report(task, metric, figures, out / "plots")
        atomic.write_text(out / "evaluation.json", json.dumps(figures, indent=2, ensure_ascii=False) + "\n")
        say(f"pictures are in {out / 'plots'}")
    except OSError as error:  # somebody else's run may well be measured
        say(f"no pictures, for {out} cannot be written: {(error.strerror or '').lower()}")
    return figures


def figures_of(run: Path, merge: int = 0, proportions: Proportions | None = None) -> Path:
    """The folder of a run's figures; those of merged tokens, or packed images, do not take the place of its own."""
    if proportions is not None:
        return run / ("packed" if proportions.tokens is None else f"packed-{proportions.tokens}")
    return run / f"merge-{merge}" if merge else run


def held_out(settings: Evaluate, task: Classifier) -> tuple[SplitName | Literal["all"], Source]:
    """The images to measure on, labelled by the task's own classes, and the split that they are."""
    if settings.data is None:
        if not (Path(settings.run) / run.RECORD).is_file():
            raise SettingError(
                f"{settings.run} was not trained here; name the data: vitrail evaluate {settings.run} DATA."
            )
        dataset = training_data(Path(settings.run))
    else:
        dataset = open_dataset(
            settings.data,
            settings.format,
            image_column=settings.image_column,
            label_column=settings.label_column,
            as_given=True,
        )
    wanted: tuple[SplitName, ...] = (settings.split,) if settings.split != "auto" else ("test", "validation", "train")
    split = next((name for name in wanted if name in dataset.splits), None)
    if split is None:
        raise SettingError(f"{dataset.name} has no {settings.split} split; it has {', '.join(dataset.splits)}.")
    only_one = len(dataset.splits) == 1 and settings.data is not None  # and it has no name of its own
    source = in_classes_of(task, dataset, dataset.splits[split])
    return "all" if only_one else split, cached_source(source, dataset.name, settings.cache)


def training_data(folder: Path) -> Dataset:
    """The data of a run, parted as it was then. Raises :class:`RunError` if they are not the same any more."""
    record = run.read(folder)
    settings = record["settings"]
    try:
        options = {key: settings[key] for key in ("data", "format", "seed", "image_column", "label_column")}
    except KeyError as error:
        raise RunError(f"{folder / run.RECORD} is damaged: it has no {error}; name the data to measure on.") from error
    dataset = open_dataset(**options, share=settings.get("share", 1.0))
    run.refuse_changed(dataset, record, folder, "name the images to measure on: `vitrail evaluate RUN DATA`")
    return dataset


def in_classes_of(task: Classifier, dataset: Dataset, source: Source) -> Source:
    """``source`` with each label as the number that the model knows its class by.

    Raises :class:`DataError` if the data has a class that the model does not.
    """
    if dataset.many_labels and not task.many_labels:
        raise DataError(f"{dataset.name} has several labels an image, the model gives one; measure on images with one.")
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
    task: Classifier,
    source: Source,
    device: torch.device,
    dtype: torch.dtype,
    unreadable: UnreadableImages,
    *,
    batch_size: int = 64,
    workers: int | None = None,
    what: str | None = None,
    through: torch.nn.Module | None = None,
    proportions: Proportions | None = None,
) -> LogitMetric:
    """The task's metric over all readable images of ``source``, shared among all processes.

    ``what`` names the work in the progress bar; None shows no bar. ``through`` is a module around the task that gives
    its logits, where sharded weights are gathered for that module alone. With ``proportions`` images are packed.
    """
    batches = batches_of(source, task, proportions, batch_size, distributed.rank(), distributed.world())
    workers = default_workers(len(source)) if workers is None else workers
    metric = task.metric()
    training = task.training
    task.eval()
    bar = progress(what, len(batches), unit="batch") if what else nullcontext(lambda done: None)
    with bar as advance:
        for done, (batch, numbers) in enumerate(load_batches(batches, 0, len(batches), workers), 1):
            unreadable.note(batch.unreadable)
            if len(batch):
                with torch.inference_mode(), products_in(dtype, device):
                    here = batch.to(device)
                    packed = isinstance(here, PackedBatch)
                    logits = packed_logits(task, here) if packed else (through or task)(here.images)
                metric.update(logits.float().cpu(), batch.labels, numbers)
            advance(done)
    task.train(training)
    if distributed.world() > 1:
        metric.merge(distributed.gather(metric))
    return metric


def report(task: Classifier, metric: LogitMetric) -> dict[str, Any]:
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


def draw_report(task: Classifier, metric: LogitMetric, figures: dict[str, Any], folder: Path) -> None:
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
    images = f"{figures['images']:,} images" + (f" of {figures['split']}" if figures["split"] != "all" else "")
    images += f", {figures['merge']} pairs of tokens merged a block" if "merge" in figures else ""
    if "packed" in figures:
        images += f", packed, of at most {figures['packed']['tokens']} patches"
    if "top1" not in figures:
        return (
            f"{images}: mAP {figures['map']:.2%}, "
            f"macro F1 {figures['macro_f1']:.2%}, micro F1 {figures['micro_f1']:.2%}"
        )
    top5 = f"top-5 {figures['top5']:.2%}, " if len(figures["per_class"]) > 5 else ""
    return (
        f"{images}: accuracy {figures['top1']:.2%}, {top5}macro F1 {figures['macro_f1']:.2%}\n"
        f"calibration error {figures['ece']:.2%} as trained, {figures['ece_calibrated']:.2%} with the temperature "
        f"{figures['temperature']:.3g}"
    )
