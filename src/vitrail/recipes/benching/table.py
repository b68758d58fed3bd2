"""What was measured, as tables."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from vitrail.bench.machine import Machine, in_words

WIDE = 110  # characters of a terminal that has room for all columns

CAPTION = (
    "Batches of {batch_size} images. p50, p99: of one image alone. Memory: at most, beyond the empty process. "
    "GFLOPs: of one image, a multiply-add counted as two. Limit: the rate of the model's own matrix products by "
    "themselves; peak: of the fastest square product."
)


def print_tables(answer: dict[str, Any], found: Machine) -> None:
    """The models that could be measured, then the images if they were read, and what it was measured on."""
    console = Console(width=None if sys.stdout.isatty() else WIDE)
    if measured := [row for row in answer["results"] if not row["error"]]:
        console.print(_models(measured, wide=console.width >= WIDE))
    if answer["pipeline"]:
        console.print("", _pipeline(answer), sep="\n")
    peak = answer["peak_flops_per_second"] / 1e12
    products = f"products in {answer['precision']} on {answer['device']}, peak {peak:.3g} TFLOP/s"
    console.print("", in_words(found), products, sep="\n", highlight=False)


def _models(rows: Sequence[dict[str, Any]], wide: bool) -> Table:
    """A narrow table leaves out what the others are made of."""
    more = ("quartiles",), ("GFLOPs", "TFLOP/s")
    first, last = more if wide else ((), ())
    figures = ("images/s", *first, "p50 ms", "p99 ms", "memory", *last, "of limit", "of peak")
    table = _table(("model", "mode"), figures)
    table.caption = CAPTION.format(**rows[0])
    for row in rows:
        cells = _cells(row)
        table.add_row(row["model"], row["mode"], *(cells[figure] for figure in figures))
    return table


def _cells(row: dict[str, Any]) -> dict[str, str]:
    latency = row["latency_ms"] or {"p50": None, "p99": None}
    rate, quartiles = _rate(row["images_per_second"])
    return {
        "images/s": rate,
        "quartiles": quartiles,
        "p50 ms": _number(latency["p50"]),
        "p99 ms": _number(latency["p99"]),
        "memory": "" if row["peak_memory_bytes"] is None else f"{row['peak_memory_bytes'] / 1e6:,.0f} MB",
        "GFLOPs": _number(row["flops"], 1e9),
        "TFLOP/s": _number(row["flops_per_second"], 1e12),
        "of limit": _share(row["share_of_limit"]),
        "of peak": _share(row["share_of_peak"]),
    }


def _pipeline(answer: dict[str, Any]) -> Table:
    table = _table(("data",), ("images", "pixels", "images/s a core", "quartiles"))
    table.caption = "Read, decoded and augmented as `vitrail train` does, by one core."
    for row in answer["pipeline"]:
        height, width = row["image_size"]
        rate = _rate(row["images_per_second_a_core"])
        table.add_row(answer["data"], f"{row['images']:,}", f"{height}x{width}", *rate)
    return table


def _table(names: tuple[str, ...], figures: tuple[str, ...]) -> Table:
    table = Table(*names, box=None, header_style="bold", pad_edge=False, caption_justify="left")
    for figure in figures:
        table.add_column(figure, justify="right")
    return table


def _rate(spread: dict[str, float]) -> tuple[str, str]:
    """The median, and the quartiles around it."""
    digits = 1 if spread["median"] >= 1 else 3
    median, low, high = (f"{spread[key]:,.{digits}f}" for key in ("median", "low", "high"))
    return median, f"{low}–{high}"


def _number(value: float | None, unit: float = 1.0) -> str:
    """Three digits that count; nothing for what is not known."""
    return "" if value is None else f"{value / unit:,.0f}" if value >= 100 * unit else f"{value / unit:.3g}"


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.0%}"
