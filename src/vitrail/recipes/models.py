"""The models there are, as a table."""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from tyro.conf import Positional

from vitrail import models
from vitrail.errors import UnknownName


@dataclass(frozen=True)
class Models:
    """List the models that can be trained.

    Examples:
      vitrail models
      vitrail models 'vit-*' --json
    """

    pattern: Positional[str] = "*"
    """A name, or a pattern such as 'resnet-*'."""
    json: bool = False
    """Print one JSON document."""


def list_models(settings: Models) -> list[dict[str, Any]]:
    """Name, family, parameters (without a head), image size, channels and width of each model that fits the pattern."""
    names = [name for name in models.names() if fnmatch.fnmatch(name, settings.pattern)]
    if not names:
        raise UnknownName("model", settings.pattern, models.names())
    rows = [_row(name) for name in names]
    if not settings.json:
        Console().print(_table(rows))
    return rows


def _row(name: str) -> dict[str, Any]:
    with torch.device("meta"):  # counted without taking memory
        model = models.create(name)
    return {
        "name": name,
        "family": models.family(name),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "image_size": list(model.config.image_size),
        "channels": model.config.channels,
        "features": model.width,
        "layers": model.depth,
    }


def _table(rows: list[dict[str, Any]]) -> Table:
    table = Table("name", "family", box=None, header_style="bold", pad_edge=False)
    for column in ("parameters", "image size", "features", "layers"):
        table.add_column(column, justify="right")
    for row in rows:
        size = "x".join(map(str, row["image_size"]))
        count = f"{row['parameters'] / 1e6:,.2f} M" if row["parameters"] >= 1e6 else f"{row['parameters']:,}"
        table.add_row(row["name"], row["family"], count, size, str(row["features"]), str(row["layers"]))
    return table
