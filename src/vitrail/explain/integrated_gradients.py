"""Integrated gradients: Sundararajan, Taly, Yan, "Axiomatic Attribution for Deep Networks", ICML 2017.

arXiv:1703.01365.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from vitrail.errors import SettingError
from vitrail.explain.gradients import differentiating, gradients
from vitrail.tasks import Classification

STEPS = 32  # points of the path at which the derivatives are taken
AT_ONCE = 16  # of them computed together, to bound the memory
SMOOTHING = 1 / 32  # deviation of the Gaussian over a heat map, in shorter sides of the image


def integrated_gradients(task: Classification, images: Tensor, classes: Tensor, steps: int = STEPS) -> Tensor:
    """How much each value of each pixel adds to the logit of a class (eq. 1, as a sum over steps of a path, eq. 3).

    The path leads straight to the image from a baseline, an image of the preprocessing's mean colour, which is zero to
    the model. What all pixels add sums up to the logit of the image less that of the baseline, the more exactly the
    more steps there are. Derivatives are taken in the middle of each step, and steps are the shorter the nearer they
    are to the baseline, t³ of the way at the time t: a network that first normalises what it reads changes most there.
    If that is a GroupNorm over the whole image (BiT, ViT's hybrids), the logit jumps within the first thousandth of the
    path, which the steps resolve so roughly that the sum is off.

    Args:
        task: in evaluation mode; its parameters may be frozen, and get no ``.grad``.
        images: ``(B, C, H, W)`` uint8.
        classes: ``(B,)`` int64, the class of each image.
        steps: how many points of the path.

    Returns:
        ``(B, C, H, W)`` float32, of either sign.

    Raises:
        SettingError: the logits have no derivatives by the pixels (iGPT).
    """
    times = (torch.arange(steps, device=images.device) + 0.5) / steps
    normalised = task.preprocess.normalize(images)
    return torch.stack([_along(task, x, number, times) for x, number in zip(normalised, classes, strict=True)])


def integrated_gradients_map(task: Classification, images: Tensor, classes: Tensor) -> Tensor:
    """The same as a heat map ``(B, H, W)`` float32: what each pixel adds in all its channels, where that is positive.

    Single pixels are hard to see, and neighbours alternate; so the map is smoothed by a Gaussian with a deviation of a
    32nd of the image's shorter side.
    """
    added = integrated_gradients(task, images, classes).sum(dim=1).relu()
    return smoothed(added, min(images.shape[-2:]) * SMOOTHING)


def smoothed(maps: Tensor, deviation: float) -> Tensor:
    """Maps ``(B, H, W)`` under a Gaussian of this deviation in pixels, with nothing beyond their borders."""
    reach = math.ceil(3 * deviation)
    offsets = torch.arange(-reach, reach + 1, device=maps.device)
    weights = (-((offsets / deviation) ** 2) / 2).exp()
    weights = weights / weights.sum()
    across = F.conv2d(maps[:, None], weights[None, None, None, :], padding=(0, reach))
    return F.conv2d(across, weights[None, None, :, None], padding=(reach, 0))[:, 0]


def _along(task: Classification, image: Tensor, number: Tensor, times: Tensor) -> Tensor:
    """The attributions ``(C, H, W)`` of one normalised image, by the derivatives at these times of the path."""
    total = torch.zeros_like(image)
    for some in times[:, None, None, None].split(AT_ONCE):
        with differentiating():
            points = (some**3 * image).requires_grad_()
            logits = task(points)
        (slopes,) = gradients(logits, number.expand(len(some)), [points])
        if slopes is None:
            raise SettingError(
                f"{task.model} reads the numbers of colours and has no derivatives by the pixels; "
                "take a method without them, such as gradcam or occlusion."
            )
        total += (3 * some**2 * slopes).sum(dim=0)
    return image * total / len(times)
