"""Probe: how well the frozen features of a model tell classes apart that it was never trained on."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import normalize

from vitrail import atomic
from vitrail.console import progress, say
from vitrail.data.cache import cached
from vitrail.data.dataset import open_dataset
from vitrail.data.loader import EvaluationBatches, UnreadableImages, default_workers, load_batches
from vitrail.data.sample import Image
from vitrail.data.source import Dataset, SplitName
from vitrail.errors import SettingError
from vitrail.explain.draw_neighbours import Neighbour, draw_neighbours
from vitrail.metrics import draw
from vitrail.metrics.classification import ClassificationMetric
from vitrail.metrics.probe import knn_logits, linear_probe
from vitrail.nn.inference import ready
from vitrail.recipes.config import config_changes
from vitrail.recipes.evaluating.settings import Evaluate
from vitrail.recipes.opened import as_stated
from vitrail.train.precision import choose_device, choose_precision, products_in
from vitrail.weights.load import Pretrained, load_pretrained


class Known(NamedTuple):
    """Features ``(N, D)`` float32 of images, their classes ``(N,)`` int64, and the images' numbers in their split."""

    features: Tensor
    labels: Tensor
    numbers: list[int]


def probe(settings: Evaluate) -> dict[str, Any]:
    """Figures on held-out images of DATA for a classifier on features of its training images.

    The weights need no classifier of their own. Raises :class:`SettingError` without DATA, and for data with several
    labels an image, and with ``--pack``.
    """
    if settings.pack or settings.pack_tokens is not None:
        raise SettingError("--pack measures the model's own classifier; a probe reads images of one size, without it.")
    dataset, split = data_to_probe(settings)
    dataset = cached(dataset, settings.cache)
    stated = settings.stated if settings.stated.model else replace(settings.stated, config=())
    found = load_pretrained(settings.run, **as_stated(stated))
    wanted = {"channels": dataset.channels, "image_size": settings.stated.image_size}
    wanted |= {} if settings.stated.model else config_changes(found.model, settings.stated.config)
    found = found.changed(**{name: value for name, value in wanted.items() if value is not None})
    train, queries = features_of(found, dataset, "train", settings), features_of(found, dataset, split, settings)
    number = len(dataset.classes)
    if settings.probe == "knn":
        logits = knn_logits(*train[:2], queries.features, number)
    else:
        validation = queries if split == "validation" else features_of(found, dataset, "validation", settings)
        weight, bias = linear_probe(*train[:2], validation[:2], number)
        logits = queries.features @ weight.T + bias
    metric = ClassificationMetric(dataset.classes)
    metric.update(logits, torch.nn.functional.one_hot(queries.labels, number).float(), list(range(len(logits))))
    figures = metric.compute() | {"probe": settings.probe, "model": found.model, "split": split}
    if not settings.json:
        say(f"{settings.probe} probe of {found.model} on {len(logits):,} images of {split}: {figures['top1']:.2%}")
    if settings.out is not None:
        atomic.write_text(settings.out / "probe.json", json.dumps(figures, indent=2, ensure_ascii=False) + "\n")
        if settings.probe == "knn":
            picture = draw_neighbours(nearest(dataset, split, train, queries))
            draw.save(picture, settings.out / "plots" / "neighbours.png")
            say(f"the most similar images are in {settings.out / 'plots' / 'neighbours.png'}")
    return figures


def nearest(
    dataset: Dataset, split: SplitName, train: Known, queries: Known, rows: int = 8, neighbours: int = 6
) -> list[tuple[Image, str, list[Neighbour]]]:
    """A few images, evenly spread over the split, each with the training images that are the most similar to it."""
    places = torch.linspace(0, len(queries.labels) - 1, min(rows, len(queries.labels))).round().long()
    similarity = normalize(queries.features[places]) @ normalize(train.features).T
    found = []
    for place, row in zip(places.tolist(), similarity, strict=True):
        values, near = row.topk(min(neighbours, len(row)))
        beside = [
            Neighbour(
                dataset.splits["train"].sample(train.numbers[i]).image, dataset.classes[int(train.labels[i])], value
            )
            for value, i in zip(values.tolist(), near.tolist(), strict=True)
        ]
        image = dataset.splits[split].sample(queries.numbers[place]).image
        found.append((image, dataset.classes[int(queries.labels[place])], beside))
    return found


def data_to_probe(settings: Evaluate) -> tuple[Dataset, SplitName]:
    """DATA, parted, and the part to measure on: the one that was asked for, else test, else validation."""
    if settings.data is None:
        raise SettingError("--probe learns from images of its own; name them: vitrail evaluate RUN DATA --probe knn.")
    dataset = open_dataset(
        settings.data, settings.format, image_column=settings.image_column, label_column=settings.label_column
    )
    if dataset.many_labels:
        raise SettingError(f"--probe needs one label an image, and {dataset.name} has several.")
    split = settings.split if settings.split != "auto" else "test" if "test" in dataset.splits else "validation"
    if split not in dataset.splits or split == "train":
        raise SettingError(
            f"--probe learns from train and measures on another split; {dataset.name} has {', '.join(dataset.splits)}."
        )
    return dataset, split


@torch.no_grad()  # inference tensors could not be learned from
def features_of(found: Pretrained, dataset: Dataset, split: SplitName, settings: Evaluate) -> Known:
    """The pooled features of a split's readable images, on the CPU."""
    source = dataset.splits[split]
    device = choose_device(settings.device)
    dtype = choose_precision(device, settings.precision)
    batches = EvaluationBatches(source, len(dataset.classes), found.preprocess, settings.batch_size)
    workers = default_workers(len(source)) if settings.workers is None else settings.workers
    unreadable = UnreadableImages(len(source), settings.max_unreadable)
    backbone = ready(found.backbone.to(device), dtype)
    features, labels, numbers = [], [], []
    with progress(f"features of {split}", len(batches), unit="batch") as advance:
        for done, (batch, some) in enumerate(load_batches(batches, 0, len(batches), workers), 1):
            unreadable.note(batch.unreadable)
            if len(batch) and batch.labels is not None:
                with products_in(dtype, device):
                    pooled = backbone(found.preprocess.normalize(batch.to(device).images)).pooled
                features.append(pooled.float().cpu())
                labels.append(batch.labels.argmax(dim=1))
                numbers.extend(some)
            advance(done)
    return Known(torch.cat(features), torch.cat(labels), numbers)
