"""A picture of what features find alike: images, and beside each the images that are nearest to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vitrail.data.sample import Image
from vitrail.explain.draw import squares_or
from vitrail.metrics.draw import DPI, GREEN, INK, ORANGE, short_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Neighbour:
    """An image ``(H, W, C)`` uint8 with its class, and its cosine similarity with the one that it is compared with."""

    image: Image
    label: str
    similarity: float


def draw_neighbours(rows: Sequence[tuple[Image, str, Sequence[Neighbour]]]) -> Figure:
    """A row for each image and its class, then its neighbours: framed green if of its class, else orange."""
    from matplotlib.figure import Figure

    most = max(len(neighbours) for _, _, neighbours in rows)
    figure = Figure(figsize=(1.1 * (most + 1) + 0.2, 1.3 * len(rows)), dpi=DPI, layout="constrained", facecolor="white")
    for line, (image, label, neighbours) in zip(figure.subplots(len(rows), most + 1, squeeze=False), rows, strict=True):
        for axes in line[1 + len(neighbours) :]:
            axes.set_axis_off()
        _draw(line[0], image, label, INK)
        for axes, near in zip(line[1:], neighbours, strict=False):
            colour = GREEN if near.label == label else ORANGE
            _draw(axes, near.image, f"{near.label} {near.similarity:.2f}", colour)
    return figure


def _draw(axes: Axes, image: Image, title: str, colour: str) -> None:
    axes.imshow(image if image.shape[2] == 3 else image.repeat(3, axis=2), interpolation=squares_or("auto", image))
    axes.set(xticks=[], yticks=[])
    axes.set_title(short_name(title, 18), color=INK, fontsize=7, pad=3)
    for spine in axes.spines.values():
        spine.set(color=colour, linewidth=2)
