"""What belongs together to a model: the features of each place as a colour (Oquab et al. 2023, DINOv2, figure 1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from vitrail.data.sample import Image
from vitrail.explain.draw import squares_or
from vitrail.metrics.draw import DPI, INK, short_name
from vitrail.tasks.task import Task

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@torch.no_grad()
def parts(task: Task, images: Tensor) -> Tensor:
    """The features of the last map of each place as red, green and blue: `colours` of all images together.

    Args:
        task: in evaluation mode.
        images: ``(B, C, H, W)`` uint8 as the model sees them.

    Returns:
        ``(B, h, w, 3)`` float32 in 0 … 1 on the grid of the model's last map.
    """
    return colours(task.features(images).maps[-1])


def colours(maps: Tensor) -> Tensor:
    """The first three principal components of all places of all maps, ``(B, D, h, w)`` to ``(B, h, w, 3)`` float32.

    Places of one colour have similar features, within an image and across them. Each component goes from 0, its
    smallest value, to 1, its largest; its sign is that with which its largest weight is above 0. (The paper cuts the
    background off by the first component, which needs features as good as its own.) Where there are fewer than three
    components, the other colours are 0.
    """
    places = maps.float().permute(0, 2, 3, 1).flatten(0, 2)
    centred = (places - places.mean(dim=0)).double().cpu()
    _, _, components = torch.linalg.svd(centred, full_matrices=False)
    components = components[:3]
    components = components * components.gather(1, components.abs().argmax(dim=1, keepdim=True)).sign()
    values = centred @ components.T
    low, high = values.amin(dim=0), values.amax(dim=0)
    scaled = (values - low) / (high - low).clamp_min(1e-12)
    batch, _, height, width = maps.shape
    return F.pad(scaled, (0, 3 - len(components))).float().view(batch, height, width, 3)


def draw_parts(images: Sequence[Image], names: Sequence[str], coloured: Sequence[NDArray]) -> Figure:
    """Each image ``(H, W, C)`` uint8 above the colours of its places, ``(h, w, 3)``."""
    from matplotlib.figure import Figure

    count = len(images)
    columns = min(count, 6)
    blocks = -(-count // columns)
    tallest = max(image.shape[0] / image.shape[1] for image in images)
    side = 1.9  # inches
    size = (max(columns, 2) * side, blocks * (2 * side * tallest + 0.3) + 0.2)
    figure = Figure(figsize=size, dpi=DPI, layout="constrained", facecolor="white")
    grid = figure.subplots(2 * blocks, columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for number, (image, name) in enumerate(zip(images, names, strict=True)):
        block, column = divmod(number, columns)
        above, below = grid[2 * block, column], grid[2 * block + 1, column]
        H, W = image.shape[:2]
        pixels = image if image.shape[2] == 3 else image.repeat(3, axis=2)
        above.imshow(pixels, interpolation=squares_or("auto", image))
        above.set_title(short_name(name), loc="left", color=INK, fontsize=8)
        below.imshow(coloured[number], extent=(0, W, H, 0), interpolation="nearest")
    return figure
