"""The models there are, as a table."""

from __future__ import annotations

import fnmatch
import sys
from typing import Any

from rich.console import Console
from rich.table import Table

from vitrail import models
from vitrail.errors import UnknownName
from vitrail.recipes.costs import cost_of, count_text
from vitrail.recipes.informing.settings import Models
from vitrail.weights.published import recommended

WIDE = 120  # characters of a terminal that has room for the weights' names


def list_models(settings: Models) -> list[dict[str, Any]]:
    """Name, family, cost and input of each model that fits, and the weights that ``--weights auto`` takes for it.

    What a model ``reads`` is images or text. ``accuracy`` is the weights' in percent, top-1 on ImageNet-1k, as
    ``measured_by`` states it; ``weights`` and the other facts about them are None where none are published.
    """
    every = models.names() + models.text_names()
    names = [name for name in every if fnmatch.fnmatch(name, settings.pattern)]
    if not names:
        raise UnknownName("model", settings.pattern, every)
    of_text = set(models.text_names())
    rows = [_text_row(name) if name in of_text else _row(name) for name in names]
    if not settings.json:
        _print(rows)
    return rows


def _row(name: str) -> dict[str, Any]:
    config, cost, published = models.config(name), cost_of(name), recommended(name)
    return {
        "name": name,
        "reads": "images",
        "family": models.family(name),
        "parameters": cost.parameters,
        "gflops": round(cost.flops / 1e9, 3),
        "image_size": list(config.image_size),
        "channels": config.channels,
        "features": cost.features,
        "accuracy": published.accuracy if published else None,
        "measured_by": published.measured_by if published else None,
        "weights": published.reference if published else None,
        "licence": published.licence if published else None,
        "paper": published.paper if published else None,
    }


def _text_row(name: str) -> dict[str, Any]:
    config, published = models.config(name), recommended(name)
    parameters, width = count_text(name)
    return {
        "name": name,
        "reads": "text",
        "family": models.family(name),
        "parameters": parameters,
        "context": config.context,
        "vocabulary": config.vocabulary,
        "features": width,
        "weights": published.reference if published else None,
        "licence": published.licence if published else None,
        "paper": published.paper if published else None,
    }


def _print(rows: list[dict[str, Any]]) -> None:
    """A table of the models of images and one of those of text, where there are such."""
    console = Console(width=None if sys.stdout.isatty() else 2 * WIDE)
    for reads, table in (("images", _table_of_images), ("text", _table_of_text)):
        if of_kind := [row for row in rows if row["reads"] == reads]:
            console.print(*([""] if of_kind[0] is not rows[0] else []), table(of_kind, console.width >= WIDE), sep="\n")


def _table_of_images(rows: list[dict[str, Any]], with_weights: bool) -> Table:
    table = _table(("parameters", "GFLOPs", "pixels", "accuracy"), with_weights)
    table.caption = (
        "GFLOPs: for one image, a multiply-add counted as two. Accuracy: of the weights that --weights auto takes, in "
        "percent on ImageNet-1k, as published."
    )
    for row in rows:
        height, width = row["image_size"]
        flops = f"{row['gflops']:,.0f}" if row["gflops"] >= 100 else f"{row['gflops']:.3g}"
        accuracy = "" if row["accuracy"] is None else f"{row['accuracy']:.1f}"
        cells = (_count(row), flops, str(height) if height == width else f"{height}x{width}", accuracy)
        table.add_row(row["name"], *cells, *_published(row, with_weights))
    return table


def _table_of_text(rows: list[dict[str, Any]], with_weights: bool) -> Table:
    table = _table(("parameters", "context", "vocabulary"), with_weights)
    table.caption = "Models of text. Context: most tokens of one input. Vocabulary: different tokens."
    for row in rows:
        cells = (_count(row), f"{row['context']:,}", f"{row['vocabulary']:,}")
        table.add_row(row["name"], *cells, *_published(row, with_weights))
    return table


def _table(columns: tuple[str, ...], with_weights: bool) -> Table:
    """An empty table of names, figures, and where weights were published."""
    table = Table("name", box=None, header_style="bold", pad_edge=False, caption_justify="left")
    for column in columns:
        table.add_column(column, justify="right")
    for column in ("paper", "weights")[: 1 + with_weights]:
        table.add_column(column, no_wrap=True)
    return table


def _count(row: dict[str, Any]) -> str:
    return f"{row['parameters'] / 1e6:,.2f} M" if row["parameters"] >= 1e6 else f"{row['parameters']:,}"


def _published(row: dict[str, Any], with_weights: bool) -> list[str]:
    return [row["paper"] or "", *[row["weights"] or ""] * with_weights]
