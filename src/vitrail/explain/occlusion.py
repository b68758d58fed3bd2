"""Occlusion: Zeiler, Fergus, "Visualizing and Understanding Convolutional Networks", ECCV 2014, section 4.2."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from vitrail.tasks import Classification

SHARE = 4  # parts of the image's shorter side, of which a square covers one
AT_ONCE = 32  # covered images computed together, to bound the memory


@torch.no_grad()
def occlusion(task: Classification, images: Tensor, classes: Tensor) -> Tensor:
    """How much the log-probability of a class falls while a square of the mean colour covers a place.

    The probability itself hardly falls where the model is sure, and a logit may fall together with those of all other
    classes. A pixel gets the mean over the squares that cover it, where that is a fall.

    Args:
        task: in evaluation mode.
        images: ``(B, C, H, W)`` uint8.
        classes: ``(B,)`` int64, the class of each image.

    Returns:
        ``(B, H, W)`` float32, 0 or more.
    """
    squares = tiling(images.shape[-2], images.shape[-1], getattr(task.backbone.config, "patch_size", 1))
    normalised = task.preprocess.normalize(images)
    return torch.stack([_falls(task, x, number, squares) for x, number in zip(normalised, classes, strict=True)])


def tiling(height: int, width: int, patch: int) -> list[tuple[slice, slice]]:
    """Squares, rows and columns of each, that overlap by half and cover an image.

    Their side is about a quarter of the image's shorter side. In a model with patches, sides and steps are whole
    patches, so that a square does not cut any.
    """
    side = max(round(min(height, width) / SHARE / patch), 1) * patch
    step = max(side // 2 // patch, 1) * patch
    rows, columns = _starts(height, side, step), _starts(width, side, step)
    return [(slice(top, top + side), slice(left, left + side)) for top in rows for left in columns]


def log_probability(task: Classification, logits: Tensor, number: Tensor) -> Tensor:
    """The log-probability ``(B,)`` float32 of one class, of logits ``(B, K)``; exact even where it is nearly 0."""
    logits = logits.float() / task.temperature
    own, others = logits[:, number], logits[:, torch.arange(logits.shape[1], device=logits.device) != number]
    return F.logsigmoid(own if task.many_labels else own - others.logsumexp(dim=1))


def _starts(length: int, side: int, step: int) -> list[int]:
    """Where squares begin along one side; the last one ends with it."""
    last = length - side
    return [*range(0, last, step), last]


def _falls(task: Classification, image: Tensor, number: Tensor, squares: Sequence[tuple[slice, slice]]) -> Tensor:
    """The map ``(H, W)`` of one normalised image."""
    whole = log_probability(task, task(image[None]), number)
    total, times = image.new_zeros(image.shape[1:]), image.new_zeros(image.shape[1:])
    for first in range(0, len(squares), AT_ONCE):
        some = squares[first : first + AT_ONCE]
        covered = image.repeat(len(some), 1, 1, 1)
        for picture, (rows, columns) in zip(covered, some, strict=True):
            picture[:, rows, columns] = 0  # the mean colour
        falls = whole - log_probability(task, task(covered), number)
        for fall, (rows, columns) in zip(falls, some, strict=True):
            total[rows, columns] += fall
            times[rows, columns] += 1
    return (total / times).relu()
