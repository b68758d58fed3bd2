"""One sheet with everything that there is to see of one image: its classes, all heat maps, and the model's inside."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from numpy.typing import NDArray

from vitrail.data.sample import Image
from vitrail.explain.draw import colour_bar, overlay, squares_or
from vitrail.metrics.draw import DPI, INK, PALE, short_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = 5
SIDE = 2.3  # inches of a picture on the sheet


@dataclass(frozen=True, eq=False)
class Sheet:
    """What is on the sheet of an image.

    Attributes:
        name: the image's.
        model: the model's.
        image: what the model sees, ``(H, W, 1 or 3)`` uint8.
        top: the most probable classes and their scores.
        explained: the class that the maps are of.
        maps: heat maps ``(H', W')`` of 0 … 1 by method.
        inside: further pictures by their titles, each drawn by a function into the axes that it is given.
    """

    name: str
    model: str
    image: Image
    top: Sequence[tuple[str, float]]
    explained: str
    maps: Mapping[str, NDArray]
    inside: Mapping[str, Callable[[Axes], None]]


def draw_sheet(sheet: Sheet) -> Figure:
    """The image with its classes first, then a picture for each method, with the method's name above it."""
    from matplotlib.figure import Figure

    count = 2 + len(sheet.maps) + len(sheet.inside)
    rows = math.ceil(count / COLUMNS)
    figure = Figure(figsize=(COLUMNS * SIDE, rows * (SIDE + 0.3) + 0.4), dpi=DPI, facecolor="white")
    figure.set_layout_engine("constrained")
    places = iter(figure.subplots(rows, COLUMNS, squeeze=False).flat)
    _draw_image(next(places), sheet)
    _draw_classes(next(places), sheet)
    for name, heat in sheet.maps.items():
        _draw_map(next(places), sheet.image, heat, name)
    for title, draw in sheet.inside.items():
        axes = next(places)
        draw(axes)
        axes.set_title(title, loc="left", color=INK, fontsize=10)
    for axes in places:
        axes.set_axis_off()
    colour_bar(figure, figure.axes, "how much a place matters", fraction=0.012, pad=0.01, shrink=1 / rows)
    title = f"{short_name(sheet.name, 60)}, seen by {sheet.model}; maps of a class are of: {sheet.explained}"
    figure.suptitle(title, color=INK, fontsize=11)
    return figure


def _draw_image(axes: Axes, sheet: Sheet) -> None:
    pixels = sheet.image if sheet.image.shape[2] == 3 else sheet.image.repeat(3, axis=2)
    axes.imshow(pixels, interpolation=squares_or("auto", sheet.image))
    axes.set_title("what the model sees", loc="left", color=INK, fontsize=10)
    axes.set_axis_off()


def _draw_classes(axes: Axes, sheet: Sheet) -> None:
    axes.barh(range(len(sheet.top)), [score for _, score in sheet.top], color=PALE, height=0.72)
    for line, (name, score) in enumerate(sheet.top):
        weight = "bold" if name == sheet.explained else "normal"
        axes.text(
            0.02, line, f"{short_name(name, 22)}  {score:.0%}", va="center", color=INK, fontsize=9, fontweight=weight
        )
    axes.set(xlim=(0, 1), ylim=(len(sheet.top) - 0.5, -0.5), xticks=[], yticks=[])
    axes.set_title("what it says", loc="left", color=INK, fontsize=10)
    axes.spines[["top", "right", "bottom"]].set_visible(False)


def _draw_map(axes: Axes, image: Image, heat: NDArray, name: str) -> None:
    overlay(axes, image, heat)
    title = name if heat.any() else f"{name}: nothing speaks for it"
    axes.set_title(title, loc="left", color=INK, fontsize=10)
    axes.set_axis_off()
