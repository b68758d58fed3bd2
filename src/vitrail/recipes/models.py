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
    """List the models that can be trained: what each costs, and how good its published weights are.

    Examples:
      vitrail models
      vitrail models 'vit-*' --json
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
    """Name, family, cost and image size of each model that fits, and the weights that ``--weights auto`` takes for it.

    ``accuracy`` is theirs in percent, top-1 on ImageNet-1k, as ``measured_by`` states it; ``weights`` and the other
    facts about them are None where none are published.
    """
    names = [name for name in models.names() if fnmatch.fnmatch(name, settings.pattern)]
    if not names:
        raise UnknownName("model", settings.pattern, models.names())
    rows = [_row(name) for name in names]
    if not settings.json:
        console = Console(width=None if sys.stdout.isatty() else 2 * WIDE)
        console.print(_table(rows, with_weights=console.width >= WIDE))
    return rows


def _row(name: str) -> dict[str, Any]:
    config, cost, published = models.config(name), cost_of(name), recommended(name)
    return {
        "name": name,
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


def forward_flops(name: str, **changes: object) -> int:
    """Floating-point operations of the model on one image, its config changed as in :func:`vitrail.models.create`."""
    with torch.device("meta"):  # counted without taking memory or computing anything
        model = models.create(name, **changes).eval().requires_grad_(False)
        with FlopCounterMode(display=False) as counter:
            model(torch.empty(1, model.config.channels, *model.config.image_size))
    return counter.get_total_flops()


def _table(rows: list[dict[str, Any]], with_weights: bool) -> Table:
    table = Table("name", box=None, header_style="bold", pad_edge=False, caption_justify="left")
    table.caption = (
        "GFLOPs: for one image, a multiply-add counted as two. Accuracy: of the weights that --weights auto takes, in "
        "percent on ImageNet-1k, as published."
    )
    for column in ("parameters", "GFLOPs", "pixels", "accuracy"):
        table.add_column(column, justify="right")
    for column in ("paper", "weights")[: 1 + with_weights]:
        table.add_column(column, no_wrap=True)
    for row in rows:
        height, width = row["image_size"]
        count = f"{row['parameters'] / 1e6:,.2f} M" if row["parameters"] >= 1e6 else f"{row['parameters']:,}"
        flops = f"{row['gflops']:,.0f}" if row["gflops"] >= 100 else f"{row['gflops']:.3g}"
        accuracy = "" if row["accuracy"] is None else f"{row['accuracy']:.1f}"
        cells = (count, flops, str(height) if height == width else f"{height}x{width}", accuracy, row["paper"] or "")
        table.add_row(row["name"], *cells, *[row["weights"] or ""] * with_weights)
    return table
