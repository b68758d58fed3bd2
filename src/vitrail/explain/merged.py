"""Which patches became one token, painted on the image (Bolya et al. 2023, Token merging, figure 4)."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vitrail.data.sample import Image
from vitrail.tasks.task import Task

SIDE = 448  # pixels that a painted image has at least, so that borders are thin


@torch.no_grad()
def groups(task: Task, images: Tensor) -> Tensor:
    """The number of the token that each place is in behind the last block, from 0 for every image.

    Args:
        task: in evaluation mode, on a backbone whose ``merge`` is above 0.
        images: ``(B, C, H, W)`` uint8 as the model sees them.

    Returns:
        ``(B, h, w)`` int64; places of one token are those that were given the same vector.
    """
    features = task.features(images)
    places = features.tokens[:, features.prefix :].cpu()
    numbers = [row.unique(dim=0, return_inverse=True)[1] for row in places]
    return torch.stack(numbers).unflatten(1, features.grid)


def painted(image: Image, numbers: NDArray[np.int64]) -> Image:
    """The image ``(H, W, C)`` uint8, where places of one number have their mean colour and a border of one colour.

    A place that is alone stays as it is. Returns ``(H', W', 3)`` uint8, enlarged by a whole factor where it is small.
    """
    scale = -(-SIDE // min(image.shape[:2]))
    pixels = np.broadcast_to(image, (*image.shape[:2], 3)).repeat(scale, axis=0).repeat(scale, axis=1)
    rows, columns = (np.arange(size) * count // size for size, count in zip(pixels.shape, numbers.shape, strict=False))
    of = numbers[rows[:, None], columns]
    together = (np.bincount(numbers.ravel()) > 1)[of]
    counts = np.bincount(of.ravel())
    mean = np.stack([np.bincount(of.ravel(), channel.ravel()) / counts for channel in np.moveaxis(pixels, 2, 0)], 1)
    filled = np.where(together[..., None], mean[of], pixels)
    at_border = borders(of, max(1, pixels.shape[0] // numbers.shape[0] // 6))
    return np.where((together & at_border)[..., None], border_colours(len(counts))[of], filled).astype(np.uint8)


def borders(of: NDArray[np.int64], width: int) -> NDArray[np.bool_]:
    """Where a pixel of another number, or the end of the image, is at most ``width`` pixels away along an axis."""
    H, W = of.shape
    padded = np.pad(of, width, constant_values=-1)
    steps = [(y, x) for step in range(-width, width + 1) for y, x in ((step, 0), (0, step))]
    return np.any([padded[width + y :, width + x :][:H, :W] != of for y, x in steps], axis=0)


def border_colours(count: int) -> NDArray[np.float64]:
    """So many bright colours ``(count, 3)`` of 0 … 255, of which those that follow each other differ most."""
    from matplotlib.colors import hsv_to_rgb

    hues = np.arange(count) * 0.618034 % 1  # the golden ratio spreads them evenly, however many there are
    return 255 * hsv_to_rgb(np.stack([hues, np.full(count, 0.9), np.ones(count)], axis=1))
