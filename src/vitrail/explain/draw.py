"""Pictures of where a model looks: each image beside itself under its heat map."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from vitrail.data.sample import Image
from vitrail.metrics.draw import DPI, INK, ORANGE, short_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TINY = 32  # pixels; up to here every pixel of an image, and every patch of its map, is shown as a square
HEAT, VEIL = "inferno", 0.6  # colours of the map, and how opaque it lies over the image
DARKEST, PALEST = -0.2, 1.2  # the values that would be black and white; so that an image under a map is neither
SHORT = 16  # letters of each class name where two stand in one title
GAP = 0.03  # between an image and its copy under the map, in widths of the image


@dataclass(frozen=True, eq=False)
class Panel:
    """An image, where the model looks in it, and what it takes it for.

    Attributes:
        image: ``(H, W, 1 or 3)`` uint8.
        map: ``(h, w)``, 0 or more; covers the whole image.
        label: the class that the model holds most probable.
        score: how probable, between 0 and 1.
        truth: the true class, where it is known.
        explained: the class that the map is of, where a person has chosen it.
    """

    image: Image
    map: NDArray
    label: str
    score: float
    truth: str | None = None
    explained: str | None = None


def draw_maps(panels: Sequence[Panel], what: str = "attention") -> Figure:
    """One sheet of all panels, best up to 16: image, heat map, and what the model says; its mistakes are marked.

    Each map has a colour scale of its own, from 0 to its largest value; how many times its mean that is stands below.
    """
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    columns = math.ceil(math.sqrt(len(panels)))
    rows = -(-len(panels) // columns)
    side = max(3.4 - 0.4 * columns, 1.8)  # inches
    tallest = max(panel.image.shape[0] / panel.image.shape[1] for panel in panels)
    size = (columns * (2.15 * side) + 0.8, rows * (side * tallest + 0.6))
    layout = ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.08, compress=True)
    figure = Figure(figsize=size, dpi=DPI, layout=layout, facecolor="white")
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes, panel in zip_longest(grid.flat, panels):
        axes.set_axis_off()
        if panel is not None:
            _draw_panel(axes, panel)
    colour_bar(figure, grid, what, fraction=0.1 / columns, pad=0.04 / columns, shrink=0.6)
    return figure


def overlay(axes: Axes, image: Image, heat: NDArray, left: float = 0.0) -> None:
    """Draw the image ``(H, W, 1 or 3)`` uint8 in grey under the map ``(h, w)``; its left edge is at ``left``."""
    H, W = image.shape[:2]
    extent = (left, left + W, H, 0)
    grey, smooth = image.mean(axis=2) / 255, squares_or("auto", image)
    axes.imshow(grey, cmap="gray", vmin=DARKEST, vmax=PALEST, extent=extent, interpolation=smooth)
    scaled, smooth = heat / (heat.max() or 1), squares_or("bilinear", image)
    axes.imshow(scaled, cmap=HEAT, vmin=0, vmax=1, alpha=VEIL, extent=extent, interpolation=smooth)


def squares_or(interpolation: str, image: Image) -> str:
    """How an image is drawn: a tiny one as squares, others as asked for."""
    return "nearest" if max(image.shape[:2]) <= TINY else interpolation


def _draw_panel(axes: Axes, panel: Panel) -> None:
    H, W = panel.image.shape[:2]
    pixels = panel.image if panel.image.shape[2] == 3 else panel.image.repeat(3, axis=2)
    axes.imshow(pixels, extent=(0, W, H, 0), interpolation=squares_or("auto", panel.image))
    second = (1 + GAP) * W
    overlay(axes, panel.image, panel.map, second)
    axes.set(xlim=(0, second + W), ylim=(H, 0))
    wrong = panel.truth not in (None, panel.label)
    axes.set_title(_title(panel, wrong), loc="left", color=ORANGE if wrong else INK, fontsize=11)
    peak = f"peak {panel.map.max() / panel.map.mean():.1f} × mean" if panel.map.any() else "nothing speaks for it"
    axes.annotate(
        peak, (second + W, H), (0, -3), textcoords="offset points", ha="right", va="top", color=INK, fontsize=7
    )


def _title(panel: Panel, wrong: bool) -> str:
    score = f"{100 * panel.score:.0f} %"
    if panel.explained is not None:
        return f"for {short_name(panel.explained, SHORT)}; it says {short_name(panel.label, SHORT)} ({score})"
    if not wrong:
        return f"{short_name(panel.label)} ({score})"
    return f"✗ {short_name(panel.label, SHORT)} ({score}), truth {short_name(str(panel.truth), SHORT)}"


def colour_bar(figure: Figure, axes: Any, what: str, **place: Any) -> None:
    """What the colours of heat maps mean, beside ``axes``; ``place`` as matplotlib has it."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    colours = ScalarMappable(Normalize(0, 1), HEAT)
    bar = figure.colorbar(colours, ax=axes, alpha=VEIL, aspect=24, ticks=[0, 1], **place)
    bar.ax.set_facecolor("gray")  # as if it lay over an image
    bar.ax.set_yticklabels(["none", "most"])
    bar.set_label(what, color=INK, fontsize=9, labelpad=-12)
    bar.ax.tick_params(colors=INK, labelsize=8, length=0)
    bar.outline.set_visible(False)
