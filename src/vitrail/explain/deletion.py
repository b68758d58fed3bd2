"""Does a heat map tell the truth? Deletion and insertion curves (Petsiuk et al. 2018, "RISE", section 4.2).

If the places that a map calls important are what the model decides by, its confidence falls fast when they are taken
away first, and rises fast when they are shown first.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from vitrail.tasks import Classification

STEPS = 32  # points of a curve, besides its start
BLUR = 1 / 12  # of the image's side; radius of the box that hides details where insertion begins


@torch.inference_mode()
def deletion(task: Classification, images: Tensor, maps: Tensor, classes: Tensor, steps: int = STEPS) -> Tensor:
    """Scores of the classes as ever more pixels are covered with the mean colour, the most important ones first.

    Args:
        task: in evaluation mode.
        images: ``(B, C, H, W)`` uint8.
        maps: ``(B, H, W)``, how important each pixel is.
        classes: ``(B,)`` int64.
        steps: points of the curve after its start.

    Returns:
        ``(B, steps + 1)``, the first of the whole images, the last of covered ones. The lower its mean, the better
        the map.
    """
    pixels = task.preprocess.normalize(images)
    return _curve(task, pixels, torch.zeros_like(pixels), maps, classes, steps)


@torch.inference_mode()
def insertion(task: Classification, images: Tensor, maps: Tensor, classes: Tensor, steps: int = STEPS) -> Tensor:
    """The same from the blurred images, where ever more pixels become sharp; the higher its mean, the better the map.

    It starts from blurred images and not from covered ones because edges of what was uncovered would be evidence.
    """
    pixels = task.preprocess.normalize(images)
    return _curve(task, blurred(pixels), pixels, maps, classes, steps)


def blurred(pixels: Tensor) -> Tensor:
    """Images ``(B, C, H, W)`` averaged three times over boxes, which is nearly a Gaussian."""
    radius = max(1, round(BLUR * min(pixels.shape[-2:])))
    for _ in range(3):
        pixels = avg_pool2d(pixels, 2 * radius + 1, stride=1, padding=radius, count_include_pad=False)
    return pixels


def _curve(task: Classification, start: Tensor, end: Tensor, maps: Tensor, classes: Tensor, steps: int) -> Tensor:
    """Scores while the pixels of ``start`` are replaced by those of ``end``, the most important ones first."""
    B, H, W = maps.shape
    rank = maps.flatten(1).argsort(dim=1, descending=True, stable=True).argsort(dim=1).view(B, 1, H, W)
    curve = []
    for step in range(steps + 1):
        replaced = rank < round(step / steps * H * W)
        scores = task.scores(task(torch.where(replaced, end, start)))
        curve.append(scores.gather(1, classes[:, None])[:, 0])
    return torch.stack(curve, dim=1)
