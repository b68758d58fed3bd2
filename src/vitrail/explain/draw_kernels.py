"""A picture of a convolution: what goes in, the kernel, what comes out, and why it has that size."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vitrail.explain.kernels import Filtered
from vitrail.metrics.draw import DPI, GRID, INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_NUMBERS = 12  # rows or columns up to which numbers can be written into the cells
WHITE = 99.5  # the percentile of an edge picture's values from which on it is white
SIDE = 3.2  # inches of a panel


def draw_kernel(filtered: Filtered, name: str = "") -> Figure:
    """Input, kernel, what the kernel gives and, with pooling, what is left of that: with their sizes, side by side.

    Pictures of up to 12 pixels have their numbers in the cells, with the zeros of the padding around them. A kernel
    whose numbers sum up to 0 gives values of both signs, of which the absolute value is drawn; others give brightness.
    """
    from matplotlib.figure import Figure

    panels = 4 if filtered.pool > 1 else 3
    tallest = min(max(filtered.image.shape[0] / filtered.image.shape[1], 0.6), 2.0)
    size = (SIDE * (panels - 0.4), SIDE * tallest + 1.1)
    figure = Figure(figsize=size, dpi=DPI, layout="constrained", facecolor="white")
    axes = list(figure.subplots(1, panels, width_ratios=[1, 0.6, *[1] * (panels - 2)]))
    _draw_values(axes[0], filtered.image, _brightness(filtered.image), "input", filtered.padding)
    _draw_table(axes[1], filtered.kernel, f"kernel {name}".strip())
    _draw_result(axes[2], filtered.convolved, filtered, "filtered", size_formula(filtered))
    if filtered.pool > 1:
        _draw_result(axes[3], filtered.result, filtered, f"max-pooled by {filtered.pool}", pool_formula(filtered))
    return figure


def size_formula(filtered: Filtered) -> str:
    """How the height and width of the filtered picture come about, in two lines."""
    sides = zip(("height", "width"), filtered.image.shape, filtered.convolved.shape, strict=False)
    k, padding, stride = len(filtered.kernel), filtered.padding, filtered.stride
    return "\n".join(f"{side} ⌊({n} + 2·{padding} − {k}) / {stride}⌋ + 1 = {m}" for side, n, m in sides)


def pool_formula(filtered: Filtered) -> str:
    """How the height and width of the pooled picture come about, in two lines."""
    sides = zip(("height", "width"), filtered.convolved.shape, filtered.result.shape, strict=False)
    return "\n".join(f"{side} ⌊{n} / {filtered.pool}⌋ = {m}" for side, n, m in sides)


def _draw_result(axes: Axes, values: NDArray[Any], filtered: Filtered, title: str, caption: str) -> None:
    if abs(filtered.kernel.sum()) < 1e-9:
        white = max(float(np.percentile(np.abs(values), WHITE)), 1e-9)
        shown, caption = np.abs(values) / white, f"{caption}\nabsolute values, white from {white:.3g} on"
    else:
        shown = _brightness(values, filtered.image)
    _draw_values(axes, values, shown, title)
    axes.set_xlabel(f"{axes.get_xlabel()}\n{caption}", color=INK, fontsize=8)


def _draw_values(axes: Axes, values: NDArray[Any], shown: NDArray[Any], title: str, padding: int = 0) -> None:
    """The picture with its size below, and its numbers in the cells if they are few and there is one channel."""
    H, W = values.shape[:2]
    few = max(H, W) + 2 * padding <= MOST_NUMBERS and (values.ndim == 2 or values.shape[2] == 1)
    shown = np.clip(shown, 0, 1)
    if shown.ndim == 3 and shown.shape[2] == 1:
        shown = shown[:, :, 0]
    axes.imshow(shown, cmap="gray", vmin=0, vmax=1, interpolation="nearest" if max(H, W) <= 64 else "auto")
    if few:
        _write_numbers(axes, values.reshape(H, W), shown, padding)
    around = f", padding {padding}" if padding else ""
    axes.set(xticks=[], yticks=[])
    axes.set_xlabel(f"{H} × {W}{around}", color=INK, fontsize=8)
    axes.set_title(title, loc="left", color=INK, fontsize=9)


def _write_numbers(axes: Axes, values: NDArray[Any], shown: NDArray[Any], padding: int) -> None:
    H, W = values.shape
    for row in range(-padding, H + padding):
        for column in range(-padding, W + padding):
            inside = 0 <= row < H and 0 <= column < W
            text = _number(float(values[row, column])) if inside else "0"
            colour = "white" if inside and shown[row, column] <= 0.5 else INK
            axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=8)
    axes.set_facecolor(GRID)  # of the padding, since the picture covers the rest
    axes.set(xlim=(-padding - 0.5, W + padding - 0.5), ylim=(H + padding - 0.5, -padding - 0.5))


def _draw_table(axes: Axes, kernel: NDArray[np.float64], title: str) -> None:
    """The kernel's numbers in a ruled square; those of a mean as fractions."""
    k = len(kernel)
    for (row, column), weight in np.ndenumerate(kernel):
        axes.text(column + 0.5, row + 0.5, _fraction(float(weight)), ha="center", va="center", color=INK, fontsize=11)
    axes.set(xlim=(0, k), ylim=(k, 0), aspect="equal", xticks=range(k + 1), yticks=range(k + 1))
    axes.grid(color=INK, linewidth=0.8)
    axes.tick_params(length=0, labelleft=False, labelbottom=False)
    axes.set_xlabel(f"{k} × {k}", color=INK, fontsize=8)
    axes.set_title(title, loc="left", color=INK, fontsize=9)


def _fraction(number: float) -> str:
    inverse = 1 / number if number else 0.0
    whole = abs(inverse) > 1 and abs(inverse - round(inverse)) < 1e-9
    return f"1/{round(inverse)}" if whole and inverse > 0 else _number(number)


def _number(value: float) -> str:
    return f"{value:.3g}".replace("-", "−")


def _brightness(values: NDArray[Any], source: NDArray[Any] | None = None) -> NDArray[np.float64]:
    """Values as 0 … 1: of bytes, 255 is white; of other numbers, the largest of the source."""
    source = values if source is None else source
    white = 255 if source.dtype == np.uint8 else max(float(source.max()), 1e-9)
    return values.astype(np.float64) / white
