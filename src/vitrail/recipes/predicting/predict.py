"""Predict: labels and scores for files, folders, patterns, or what comes from standard input."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from vitrail.console import say
from vitrail.data.files import Files
from vitrail.data.loader import default_workers, load_batches
from vitrail.data.proportions import PackedBatch, Proportions
from vitrail.data.sample import Batch
from vitrail.export.predictor import Exported
from vitrail.nn.inference import ready
from vitrail.recipes.given import find_images
from vitrail.recipes.opened import classification, open_model
from vitrail.recipes.packing import batches_of, packed_logits, packing
from vitrail.recipes.predicting.alike import alike
from vitrail.recipes.predicting.settings import Predict
from vitrail.recipes.predicting.text import predict_text
from vitrail.recipes.settings import check_numbers
from vitrail.tasks import TextTask
from vitrail.tasks.classifier import Classifier
from vitrail.train.precision import choose_device, choose_precision, products_in


def predict(settings: Predict) -> list[dict[str, Any]]:
    """Predictions in the order of the images; a broken image has its ``error``, and no predictions."""
    check_numbers(settings)
    opened = open_model(settings.run, settings.stated, settings.merge)
    proportions = packing(settings, opened)
    if isinstance(opened, TextTask):
        return predict_text(settings, opened)
    task = opened if isinstance(opened, Exported) else classification(settings.run, opened)
    files = Files(find_images(settings.images))
    device = choose_device(settings.device)
    dtype = choose_precision(device, settings.precision)
    answers = []
    for answer in _answers(ready(task.to(device), dtype), files, settings, device, dtype, proportions):
        answers.append(answer)
        if settings.json:
            continue
        if answer["error"]:
            say(f"{answer['image']}: cannot be read: {answer['error']}")
        else:
            print(_line(answer), flush=True)
    return answers


def _answers(
    task: Classifier,
    files: Files,
    settings: Predict,
    device: torch.device,
    dtype: torch.dtype,
    proportions: Proportions | None,
) -> Iterator[dict[str, Any]]:
    batches = batches_of(files, task, proportions, settings.batch_size)
    workers = default_workers(len(files)) if settings.workers is None else settings.workers
    for step, (batch, numbers) in enumerate(load_batches(batches, 0, len(batches), workers)):
        predictions = {}
        if len(batch):
            logits = _logits(task, batch.to(device), dtype)
            predictions = dict(zip(numbers, task.decode(logits, settings.top), strict=True))
        reasons = {error.name: error.reason for error in batch.unreadable}
        first = step * settings.batch_size
        for number in range(first, min(first + settings.batch_size, len(files))):
            name = files.name(number)
            scored = [asdict(prediction) for prediction in predictions.get(number, ())]
            yield {"image": name, "predictions": scored, "error": None if scored else reasons[name]}


def _logits(task: Classifier, batch: Batch | PackedBatch, dtype: torch.dtype) -> Tensor:
    if isinstance(batch, Batch):
        return alike(task, batch.images, dtype)
    with torch.inference_mode(), products_in(dtype, batch.rows[0][0].device):
        return packed_logits(task, batch)


def _line(answer: dict[str, Any]) -> str:
    return f"{answer['image']}: " + ", ".join(f"{p['label']} {p['score']:.1%}" for p in answer["predictions"])
