"""The images that a model finds most alike: nearest neighbours of its features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from vitrail.console import progress
from vitrail.data.loader import EvaluationBatches, UnreadableImages, default_workers, load_batches
from vitrail.data.sample import Label
from vitrail.data.source import Source
from vitrail.errors import DataError
from vitrail.explain.draw_neighbours import Neighbour
from vitrail.tasks.task import Task


@dataclass(frozen=True, eq=False)
class Known:
    """Features of a source's images, among which the nearest are looked for.

    Attributes:
        source: the images.
        classes: names of their classes, in the order of the labels' indices; none where there are no labels.
        numbers: of those that could be read, ``(N,)`` int64.
        features: ``(N, W)`` float32 of length 1, on the CPU.
    """

    source: Source
    classes: Sequence[str]
    numbers: Tensor
    features: Tensor


@torch.inference_mode()
def known_images(
    task: Task, source: Source, classes: Sequence[str] = (), batch_size: int = 32, workers: int | None = None
) -> Known:
    """The pooled features of every image of a source, with progress; unreadable ones are named and left out.

    Args:
        task: in evaluation mode; computes on its own device.
        source, classes: the images, and the names of their classes where they have labels.
        batch_size: images computed at once.
        workers: processes that read images; None for a number that suits the machine.

    Raises :class:`DataError` where too many cannot be read, or none is there.
    """
    device = next(task.parameters()).device
    batches = EvaluationBatches(source, len(classes), task.preprocess, batch_size)
    workers = default_workers(len(source)) if workers is None else workers
    unreadable = UnreadableImages(len(source))
    features, numbers = [], []
    with progress("features", len(batches), unit="batch") as advance:
        for done, (batch, some) in enumerate(load_batches(batches, 0, len(batches), workers), 1):
            unreadable.note(batch.unreadable)
            if some:
                features.append(task.features(batch.to(device).images).pooled.float().cpu())
                numbers += some
            advance(done)
    if not numbers:
        raise DataError("there is no image to compare with; give data with images in it.")
    return Known(source, classes, torch.tensor(numbers), F.normalize(torch.cat(features), dim=1))


class Nearest(NamedTuple):
    """For each of B images its k nearest: ``numbers (B, k)`` in the source, ``similarities (B, k)`` falling.

    A similarity is the cosine of the angle between two images' features, 1 for the same direction.
    """

    numbers: Tensor
    similarities: Tensor


@torch.inference_mode()
def nearest(task: Task, images: Tensor, known: Known, count: int = 6) -> Nearest:
    """The known images whose features are most like those of ``images (B, C, H, W)`` uint8, best first.

    An image that is among the known ones itself is found, too.
    """
    queries = F.normalize(task.features(images).pooled.float().cpu(), dim=1)
    similarities, places = (queries @ known.features.T).topk(min(count, len(known.numbers)), dim=1)
    return Nearest(known.numbers[places], similarities)


def neighbours(known: Known, found: Nearest) -> list[list[Neighbour]]:
    """The nearest images themselves with their classes, a list for each image, as `draw_neighbours` wants them."""
    return [
        [Neighbour(known.source.sample(number).image, class_name(known, number), value) for number, value in pairs]
        for pairs in map(_pairs, found.numbers, found.similarities)
    ]


def class_name(known: Known, number: int) -> str:
    """The class of a known image, or its classes with commas between."""
    label = known.source.label(number)
    indices = () if label is None else (label.index,) if isinstance(label, Label) else label.indices
    return ", ".join(known.classes[index] for index in indices)


def _pairs(numbers: Tensor, similarities: Tensor) -> list[tuple[int, float]]:
    return list(zip(numbers.tolist(), similarities.tolist(), strict=True))
