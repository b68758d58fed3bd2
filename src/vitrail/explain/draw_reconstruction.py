"""Pictures of masked autoencoding: each image with patches hidden, painted again, and as it is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING

from vitrail.explain.draw import GAP, squares_or
from vitrail.explain.reconstruct import Reconstruction
from vitrail.metrics.draw import DPI, INK, short_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ONE_COLUMN = 4  # images on a sheet; more stand side by side
STATES = ("masked", "reconstructed", "original")
BORROWED = "The reconstruction was learned up to each patch's mean and contrast, which are taken from the original."


def draw_reconstructions(rows: Sequence[tuple[str, Reconstruction]], *, borrowed: bool) -> Figure:
    """One sheet of named reconstructions, best up to 16: masked, reconstructed and original, with the error.

    ``borrowed``: whether the painted patches have the mean and deviation of the true ones, which is then said.
    """
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    columns = 1 if len(rows) <= ONE_COLUMN else 2
    lines = math.ceil(len(rows) / columns)
    tallest = max(row.original.shape[0] / row.original.shape[1] for _, row in rows)
    side = 1.7  # inches
    size = (columns * (3.1 * side) + 0.3, lines * (side * tallest + 0.4) + 0.2)
    layout = ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.06, compress=True)
    figure = Figure(figsize=size, dpi=DPI, layout=layout, facecolor="white")
    for axes, row in zip_longest(figure.subplots(lines, columns, squeeze=False).flat, rows):
        axes.set_axis_off()
        if row is not None:
            _draw_row(axes, *row)
    if borrowed:
        figure.supxlabel(BORROWED, x=0.02, ha="left", color=INK, fontsize=7)
    return figure


def _draw_row(axes: Axes, name: str, row: Reconstruction) -> None:
    H, W = row.original.shape[:2]
    for number, (state, image) in enumerate(zip(STATES, (row.masked, row.painted, row.original), strict=True)):
        left = number * (1 + GAP) * W
        pixels = image if image.shape[2] == 3 else image.repeat(3, axis=2)
        axes.imshow(pixels, extent=(left, left + W, H, 0), interpolation=squares_or("auto", image))
        words = f"{state}, {100 * row.hidden.mean():.0f} % hidden" if number == 0 else state
        words += f", error {row.error:.2f}" if number == 1 else ""
        axes.annotate(words, (left, H), (0, -3), textcoords="offset points", ha="left", va="top", color=INK, fontsize=7)
    axes.set(xlim=(0, (3 + 2 * GAP) * W), ylim=(H, 0))
    axes.set_title(short_name(name, 40), loc="left", color=INK, fontsize=9)
