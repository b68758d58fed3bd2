"""The models there are, as a table."""

from __future__ import annotations

import csv
import fnmatch
import sys
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode
from tyro.conf import Positional

from vitrail import models
from vitrail.errors import UnknownName
from vitrail.weights.published import recommended

WIDE = 120  # characters of a terminal that has room for the weights' names


@dataclass(frozen=True)
class Models:
    """List the models of images and of text: what each costs, and how good its published weights are.

    Examples:
      vitrail models
      vitrail models 'vit-*' --json
      vitrail models 'gpt*'
    """

    pattern: Positional[str] = "*"
    """A name, or a pattern such as 'resnet-*'."""
    json: bool = False
    """Print one JSON document."""


@dataclass(frozen=True)
class Cost:
    """What a model costs, without a head.

    Attributes:
        parameters: learned values.
        flops: floating-point operations for one image; a multiplication with its addition counts as two.
        features: size of the pooled vector.
    """

    parameters: int
    flops: int
    features: int


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


def cost_of(name: str) -> Cost:
    """The cost of a published model: from the table that lies beside them, for counting them all takes many seconds."""
    return _table_of_costs().get(name) or count(name)


@cache
def _table_of_costs() -> dict[str, Cost]:
    table = (resources.files("vitrail.models") / "costs.csv").read_text(encoding="utf-8")
    rows = csv.DictReader(table.splitlines())
    return {row["name"]: Cost(int(row["parameters"]), int(row["flops"]), int(row["features"])) for row in rows}


def count(name: str) -> Cost:
    """The cost of a model, counted."""
    with torch.device("meta"):
        model = models.create(name)
    return Cost(sum(parameter.numel() for parameter in model.parameters()), forward_flops(name), model.width)


@cache
def count_text(name: str) -> tuple[int, int]:
    """Learned values of a model of text, and the size of its pooled vector."""
    with torch.device("meta"):
        model = models.create_text(name)
    return sum(parameter.numel() for parameter in model.parameters()), model.width


def forward_flops(name: str, **changes: object) -> int:
    """Floating-point operations of the model on one image, its config changed as in :func:`vitrail.models.create`."""
    with torch.device("meta"):  # counted without taking memory or computing anything
        model = models.create(name, **changes).eval().requires_grad_(False)
        with FlopCounterMode(display=False) as counter:
            model(torch.empty(1, model.config.channels, *model.config.image_size))
    return counter.get_total_flops()


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
