"""How good a pre-trained model is at what it was pre-trained with: its losses on data that it has not seen."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

from vitrail import atomic
from vitrail.console import progress, say
from vitrail.data.cache import cached
from vitrail.data.loader import load_batches
from vitrail.data.text.corpus import open_corpus
from vitrail.data.unlabelled import open_images
from vitrail.errors import SettingError
from vitrail.objectives import ImageObjective, Objective, TextObjective
from vitrail.recipes import run
from vitrail.recipes.evaluating.settings import Evaluate
from vitrail.train import distributed
from vitrail.train.precision import choose_device, choose_precision, products_in


def evaluate_objective(settings: Evaluate, learner: Objective) -> dict[str, Any]:
    """The losses on what training held back, or on DATA; written into the run's folder for its own data.

    Raises :class:`SettingError` if there is no data, or not that part of it, and what opening it raises.
    """
    device = choose_device(settings.device)
    dtype = choose_precision(device, settings.precision)
    split, batches = held_out(settings, learner)
    figures = measured(learner.to(device), batches, device, dtype) | {"split": split}
    if not settings.json:
        say(in_words(figures))
    out = settings.out or (Path(settings.run) if settings.data is None else None)
    if out is not None:
        atomic.write_text(out / "evaluation.json", json.dumps(figures, indent=2) + "\n")
    return figures


def held_out(settings: Evaluate, learner: Objective) -> tuple[str, Any]:
    """The name of the part to measure on, and its batches."""
    data, seed = settings.data, 0
    if data is None:
        if not (Path(settings.run) / run.RECORD).is_file():
            raise SettingError(
                f"{settings.run} was not trained here; name the data: vitrail evaluate {settings.run} DATA."
            )
        record = run.read(Path(settings.run))["settings"]
        data, seed = record["data"], record["seed"]
    as_given = settings.data is not None
    parts: dict[Any, Any]
    if isinstance(learner, ImageObjective):
        images = open_images(data, settings.format, seed=seed, image_column=settings.image_column, as_given=as_given)
        parts = dict(cached(images, settings.cache).splits)
    else:
        assert isinstance(learner, TextObjective)
        parts = dict(open_corpus(data, seed=seed, as_given=as_given).splits)
    wanted = (settings.split,) if settings.split != "auto" else ("test", "validation", "train")
    split = next((name for name in wanted if name in parts), None)
    if split is None:
        raise SettingError(f"{data} has no {settings.split} split; it has {', '.join(parts)}.")
    name = "all" if len(parts) == 1 and as_given else split
    if isinstance(learner, ImageObjective):
        return name, learner.evaluation_batches(parts[split], len(images.classes), settings.batch_size)
    return name, learner.evaluation_batches(learner.tokenizer.encode_many(parts[split]), settings.batch_size)


def in_words(figures: dict[str, Any]) -> str:
    """The figures as a line."""
    words = ", ".join(f"{key} {value:.4f}" for key, value in figures.items() if key != "split")
    return f"{figures['split']}: {words}"


def measured(learner: Any, batches: Any, device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    """The learner's figures over all of the batches."""
    return learner.figures(mean_losses(learner, batches, device, dtype, "evaluating"), batches)


@torch.no_grad()
def mean_losses(
    learner: Any, batches: Any, device: torch.device, dtype: torch.dtype, what: str | None = None
) -> dict[str, float]:
    """The mean of each of the learner's losses over batches, weighted by their rows, over all processes."""
    training = learner.training
    learner.eval()
    totals: dict[str, float] = {}
    rows = 0
    bar = progress(what, len(batches), unit="batch") if what else nullcontext(lambda done: None)
    with bar as advance:
        for done, item in enumerate(load_batches(batches, 0, len(batches), 0), 1):
            batch = item[0] if isinstance(item, list | tuple) else item  # of images with their numbers
            if len(batch):
                with products_in(dtype, device):
                    losses = learner.loss(batch.to(device))
                for key, value in losses.items():
                    totals[key] = totals.get(key, 0.0) + float(value) * len(batch)
                rows += len(batch)
            advance(done)
    learner.train(training)
    shares = distributed.gather((totals, rows))
    everything = sum(rows for _, rows in shares)
    return {key: sum(of[key] for of, _ in shares if key in of) / everything for key in totals}
