"""Pictures of a run: its curves, its mistakes, its calibration, its classes.

Figures are made without pyplot: they belong to their caller alone, may be drawn in any thread, and leave nothing
behind. Matplotlib is imported only when something is drawn, since that takes a while.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vitrail import atomic
from vitrail.metrics.calibration import Reliability, expected_calibration_error
from vitrail.metrics.classification import most_confused
from vitrail.metrics.power_law import PowerLaw

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter

Records = Sequence[Mapping[str, Any]]

DPI = 144
BLUE, ORANGE, GREEN = "#0072B2", "#D55E00", "#009E73"  # Okabe and Ito's palette, told apart by every eye
INK, PALE, GRID = "#24292F", "#B3D4E8", "#E3E6E8"
DASHED = (0, (4, 4))
MOST_NUMBERS, MOST_LABELS, MOST_BARS = 20, 50, 100  # classes up to which these can still be read
SCORES = {
    "top1": "top-1 accuracy",
    "map": "mean average precision",
    "f1": "F1",
    "knn": "accuracy of nearest neighbours",
}


def curves(history: Records) -> Figure:
    """Loss, score and learning rate over the steps, as far as the records of ``metrics.jsonl`` have them.

    A record has ``step``, ``epoch`` and ``kind``: ``train`` with ``loss`` and ``learning_rate``, or ``validation`` with
    ``loss`` or ``nll`` and ``top1`` or ``map``. The epoch with the best score is marked.
    """
    train = [record for record in history if record["kind"] == "train"]
    validation = [record for record in history if record["kind"] == "validation"]
    score = next((name for name in SCORES if _finite(validation, name)), None)
    panels = [partial(_draw_loss, train=train, validation=validation)]
    if score:
        panels.append(partial(_draw_score, validation=validation, score=score))
    if _finite(train, "learning_rate"):
        panels.append(partial(_draw_learning_rate, train=train))
    figure = _figure(4.2 * len(panels), 3.4)
    for axes, draw in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        draw(axes)
    return figure


def confusion(matrix: ArrayLike, classes: Sequence[str]) -> Figure:
    """How often each class (row) was taken for which (column), as a share of the row; ``matrix`` is ``(K, K)`` counts.

    Up to 20 classes the counts are written in, up to 50 the classes are named; beyond, the most frequent mistakes are
    listed beside the picture.
    """
    counts = np.asarray(matrix)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    K = len(classes)
    if K <= MOST_LABELS:
        side = min(max(0.45 * K, 2.4), 9.0)
        figure = _figure(side + 2.8, side + 1.4)
        axes = figure.subplots()
        _name_classes(axes, classes)
    else:
        figure = _figure(12.5, 6.6)
        axes, beside = figure.subplots(1, 2, width_ratios=(7.5, 5))
        axes.set(xticks=[], yticks=[])
        _list_mistakes(beside, counts, classes)
    _colour_shares(figure, axes, shares)
    if K <= MOST_NUMBERS:
        _write_counts(axes, counts, shares)
    _dress(axes, f"{_percent(counts.trace() / max(counts.sum(), 1))} of {counts.sum():,} right", "predicted", "truth")
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    return figure


def reliability_diagram(tables: Mapping[str, Reliability]) -> Figure:
    """Accuracy against confidence, the more decisions the larger the point, and below how many have which confidence.

    Args:
        tables: one to three, by the name for the legend, such as ``as trained`` and ``temperature 1.43``; the
            expected calibration error of each stands in the title.
    """
    figure = _figure(4.6, 5.6)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    upper.plot([0, 1], [0, 1], color=INK, linewidth=0.8, linestyle=DASHED, label="as sure as right")
    for (name, table), colour in zip(tables.items(), (ORANGE, BLUE, GREEN), strict=False):
        shares = table.counts / max(table.counts.sum(), 1)
        filled = shares > 0
        points = table.confidence[filled], table.accuracy[filled]
        upper.plot(*points, color=colour, linewidth=1.2, label=name)
        upper.scatter(*points, s=10 + 300 * shares[filled], color=colour, linewidth=0, clip_on=False)
        lower.stairs(shares, np.linspace(0, 1, len(shares) + 1), color=colour, linewidth=1.4)
    errors = " → ".join(_percent(expected_calibration_error(table)) for table in tables.values())
    _dress(upper, f"calibration error (ECE) {errors}", "", "accuracy")
    _dress(lower, "", "confidence", "share of decisions")
    upper.set(xlim=(0, 1), ylim=(0, 1.02))
    upper.legend(frameon=False, labelcolor=INK, fontsize=9, loc="upper left")
    for axis in (upper.xaxis, upper.yaxis, lower.yaxis):
        axis.set_major_formatter(_percent_ticks())
    return figure


def per_class_bars(per_class: Records) -> Figure:
    """F1 of every class that occurs as a bar, the weakest on top, with its precision and recall as marks.

    Args:
        per_class: ``{label, precision, recall, f1, images}`` each; of more than 100 the weakest 100 are drawn.
    """
    present = sorted((row for row in per_class if row["images"]), key=lambda row: row["f1"])
    rows = present[:MOST_BARS]
    figure = _figure(6.4, 1.3 + 0.2 * max(len(rows), 2))
    axes = figure.subplots()
    places = np.arange(len(rows))
    axes.barh(places, [row["f1"] for row in rows], color=PALE, height=0.7, label="F1")
    axes.plot([row["precision"] for row in rows], places, "|", color=ORANGE, markersize=8, mew=2, label="precision")
    axes.plot([row["recall"] for row in rows], places, ".", color=BLUE, markersize=8, label="recall")
    names = [f"{short_name(row['label'])} ({row['images']:,})" for row in rows]
    axes.set_yticks(places, names)
    _dress(axes, _which(len(rows), len(present)), "", "")
    axes.grid(axis="y", visible=False)
    axes.grid(axis="x", color=GRID, linewidth=0.8)
    axes.set(xlim=(0, 1.01), ylim=(len(rows) - 0.4, -0.6))
    axes.xaxis.set_major_formatter(_percent_ticks())
    figure.legend(loc="outside lower center", ncols=3, frameon=False, labelcolor=INK, fontsize=9)
    return figure


def scaling(
    runs: Mapping[str, tuple[Sequence[int], Sequence[float]]], laws: Mapping[str, PowerLaw | None], score: str
) -> Figure:
    """A score against the number of training images, and the error beside it, where a power law is nearly straight.

    Errors below a thousandth, which logarithms would not show, are drawn there.

    Args:
        runs: one to three, by name: for every run the number of images and the score, which is at most 1.
        laws: fitted to the errors 1 - score; drawn to four times the images. None for no law.
        score: what it is, such as "accuracy".
    """
    figure = _figure(9.6, 4.2)
    left, right = figure.subplots(1, 2)
    for (name, (images, scores)), colour in zip(runs.items(), (ORANGE, BLUE, GREEN), strict=False):
        n, y = np.asarray(images), np.asarray(scores)
        sizes = np.unique(n)
        left.plot(sizes, [y[n == size].mean() for size in sizes], color=colour, label=name)
        for axes, values in ((left, y), (right, np.maximum(1 - y, 1e-3))):
            axes.plot(n, values, "o", color=colour, ms=4, alpha=0.6)
        if (law := laws[name]) is not None:
            inside, beyond = np.geomspace(n.min(), n.max()), np.geomspace(n.max(), 4 * n.max())
            power = re.sub(r"\^(-[\d.e-]+)", r"$^{\1}$", str(law)).replace(" · ", " ")
            right.plot(inside, np.maximum(law(inside), 1e-3), color=colour, label=f"{name}: {power}")
            right.plot(beyond, np.maximum(law(beyond), 1e-3), color=colour, linestyle=DASHED, linewidth=1)
    _dress(left, score, "training images", "")
    _dress(right, "error, and the power law fitted to it", "training images", "")
    right.set_yscale("log")
    for axes in (left, right):
        axes.set_xscale("log")
        axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
        axes.xaxis.minorticks_off()
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False, labelcolor=INK, fontsize=9)
    for of_axis in (left.yaxis.set_major_formatter, right.yaxis.set_major_formatter, right.yaxis.set_minor_formatter):
        of_axis(_percent_ticks())
    right.tick_params(which="minor", colors=INK, labelsize=8)
    return figure


def masking(runs: Sequence[tuple[float, float, float | None]]) -> Figure:
    """What hiding more of an image does: the error of hidden pixels, and the accuracy of a probe where it is known.

    A run is the share that is hidden, its error and its accuracy; a dot stands for it, the line for a share's mean.
    """
    shares, errors, scores = (np.array(values, dtype=float) for values in zip(*runs, strict=True))
    panels = [("error of hidden pixels", errors, ORANGE), ("accuracy of a linear probe", scores, BLUE)]
    panels = panels[: 1 if np.isnan(scores).all() else 2]
    figure = _figure(4.8 * len(panels), 3.8)
    for axes, (title, y, colour) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        places = np.unique(shares)
        axes.plot(places, [y[shares == place].mean() for place in places], color=colour)
        axes.plot(shares, y, "o", color=colour, ms=4, alpha=0.6)
        _dress(axes, title, "share of patches that is hidden", "")
        axes.set_xticks(places)
        axes.xaxis.set_major_formatter(_percent_ticks())
        if y is scores:
            axes.yaxis.set_major_formatter(_percent_ticks())
    return figure


def save(figure: Figure, path: Path) -> None:
    """Write the figure as PNG, whole or not at all. Raises :class:`vitrail.errors.DiskFull`."""
    atomic.write(path, lambda temporary: figure.savefig(temporary, format="png", dpi=DPI, facecolor="white"))


def _draw_loss(axes: Axes, train: Records, validation: Records) -> None:
    _plot(axes, train, "loss", color=PALE, linewidth=1)
    _plot(axes, _smooth(_finite(train, "loss"), "loss"), "loss", color=BLUE, label="training")
    _plot(axes, validation, "loss" if _finite(validation, "loss") else "nll", color=ORANGE, label="validation")
    _dress_steps(axes, "loss")
    if axes.lines:
        axes.legend(frameon=False, labelcolor=INK, fontsize=9, loc="upper right")


def _draw_score(axes: Axes, validation: Records, score: str) -> None:
    best = max(_finite(validation, score), key=lambda record: (record[score], record["step"]))  # of equals the last
    axes.axvline(best["step"], color=INK, linewidth=0.8, linestyle=DASHED)
    _plot(axes, validation, score, color=ORANGE)
    axes.plot(best["step"], best[score], "o", markersize=9, markerfacecolor="none", color=INK)
    _dress_steps(axes, f"{SCORES[score]}: best {_percent(best[score])}, epoch {best['epoch']:g}")
    axes.yaxis.set_major_formatter(_percent_ticks())


def _draw_learning_rate(axes: Axes, train: Records) -> None:
    _plot(axes, train, "learning_rate", color=GREEN)
    _dress_steps(axes, "learning rate")
    axes.yaxis.set_major_formatter("{x:g}")


def _finite(records: Records, name: str) -> list[Mapping[str, Any]]:
    """The records that have this value; a diverged run may have written NaN or null."""
    return [record for record in records if record.get(name) is not None and math.isfinite(record[name])]


def _plot(axes: Axes, records: Records, name: str, **style: Any) -> None:
    kept = _finite(records, name)
    marker = "o" if len(kept) <= 40 else ""  # more would run into one another
    if kept:
        axes.plot(
            [record["step"] for record in kept], [record[name] for record in kept], marker=marker, ms=3.5, **style
        )


def _smooth(records: Records, name: str) -> list[dict[str, Any]]:
    """The same records, each value replaced by the mean of those around it, about a twenty-fifth of all."""
    reach = len(records) // 50
    values = np.array([record[name] for record in records])
    means = [values[max(i - reach, 0) : i + reach + 1].mean() for i in range(len(values))]
    return [{**record, name: mean} for record, mean in zip(records, means, strict=True)]


def _colour_shares(figure: Figure, axes: Axes, shares: NDArray) -> None:
    from matplotlib.colors import PowerNorm

    norm = PowerNorm(0.5, vmin=0, vmax=1)  # so that rare mistakes are seen
    image = axes.imshow(shares, cmap="Blues", norm=norm, interpolation="nearest")
    bar = figure.colorbar(image, ax=axes, shrink=0.6, aspect=24, ticks=[0, 0.05, 0.25, 0.5, 1], format=_percent_ticks())
    bar.set_label("share of the true class", color=INK, fontsize=9)
    bar.ax.tick_params(colors=INK, labelsize=8)
    bar.outline.set_visible(False)


def _name_classes(axes: Axes, classes: Sequence[str]) -> None:
    names = [short_name(label) for label in classes]
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(length=0, labelsize=9 if len(names) <= MOST_NUMBERS else 7)


def _write_counts(axes: Axes, counts: NDArray, shares: NDArray) -> None:
    for i, j in np.argwhere(counts):
        colour = "white" if shares[i, j] > 0.3 else INK
        axes.text(j, i, f"{counts[i, j]}", ha="center", va="center", color=colour, fontsize=8)


def _list_mistakes(axes: Axes, counts: NDArray, classes: Sequence[str]) -> None:
    lines = [f"{n:,} × {short_name(classes[i])} → {short_name(classes[j])}" for i, j, n in most_confused(counts, 20)]
    axes.text(0, 0.98, "\n".join(lines or ["none"]), va="top", color=INK, fontsize=9, linespacing=1.7)
    axes.set_title("most frequent mistakes: truth → prediction", loc="left", color=INK, fontsize=11)
    axes.set_axis_off()


def _which(drawn: int, present: int) -> str:
    return f"F1 of {present} classes" if drawn == present else f"F1 of the {drawn} weakest of {present} classes"


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1)
    return Figure(figsize=(width, height), dpi=DPI, layout=layout, facecolor="white")


def _dress(axes: Axes, title: str, x: str, y: str) -> None:
    """The same sober clothes for all, on white whatever a person's own matplotlib settings are."""
    axes.set_title(title, loc="left", color=INK, fontsize=11)
    axes.set_xlabel(x, color=INK, fontsize=10)
    axes.set_ylabel(y, color=INK, fontsize=10)
    axes.set_facecolor("white")
    axes.tick_params(colors=INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["bottom", "left"]].set_color(INK)
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)


def _dress_steps(axes: Axes, title: str) -> None:
    from matplotlib.ticker import MaxNLocator

    _dress(axes, title, "step", "")
    axes.xaxis.set_major_locator(
        MaxNLocator(nbins=6, integer=True, min_n_ticks=1)
    )  # few enough for numbers of six digits


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _percent_ticks() -> FuncFormatter:
    from matplotlib.ticker import FuncFormatter

    return FuncFormatter(lambda share, _: f"{100 * share:.4g} %")


def short_name(label: str, longest: int = 24) -> str:
    """A class name that can be drawn: no formula, no letter that matplotlib's chosen font lacks, not too long."""
    glyphs = _glyphs()
    letters = "".join(letter if ord(letter) in glyphs else "?" for letter in label)
    short = letters if len(letters) <= longest else letters[: longest - 1] + "…"
    return short.replace("$", r"\$")


@cache
def _glyphs() -> frozenset[int]:
    from matplotlib.font_manager import FontProperties, findfont, get_font

    return frozenset(get_font(findfont(FontProperties())).get_charmap())
