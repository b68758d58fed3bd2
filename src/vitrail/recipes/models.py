"""The models there are, as a table."""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode
from tyro.conf import Positional

from vitrail import models
from vitrail.errors import UnknownName


@dataclass(frozen=True)
class Models:
    """List the models that can be trained, with what each costs.

    Examples:
      vitrail models
      vitrail models 'vit-*' --json
    """

    pattern: Positional[str] = "*"
    """A name, or a pattern such as 'resnet-*'."""
    json: bool = False
    """Print one JSON document."""


def list_models(settings: Models) -> list[dict[str, Any]]:
    """Name, family, parameters, GFLOPs for an image, its size, and the features' size of each model that fits.

    No head is counted. A multiplication with its addition counts as two operations; papers often count them as one.
    """
    names = [name for name in models.names() if fnmatch.fnmatch(name, settings.pattern)]
    if not names:
        raise UnknownName("model", settings.pattern, models.names())
    rows = [_row(name) for name in names]
    if not settings.json:
        Console().print(_table(rows))
    return rows


def _row(name: str) -> dict[str, Any]:
    with torch.device("meta"):
        model = models.create(name)
    return {
        "name": name,
        "family": models.family(name),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "gflops": round(forward_flops(name) / 1e9, 3),
        "image_size": list(model.config.image_size),
        "channels": model.config.channels,
        "features": model.width,
    }


def forward_flops(name: str, **changes: object) -> int:
    """Floating-point operations of the model on one image, its config changed as in :func:`vitrail.models.create`."""
    with torch.device("meta"):  # counted without taking memory or computing anything
        model = models.create(name, **changes).eval().requires_grad_(False)
        with FlopCounterMode(display=False) as counter:
            model(torch.empty(1, model.config.channels, *model.config.image_size))
    return counter.get_total_flops()


def _table(rows: list[dict[str, Any]]) -> Table:
    table = Table("name", "family", box=None, header_style="bold", pad_edge=False, caption_justify="left")
    table.caption = "GFLOPs: for one image, a multiply-add counted as two."
    for column in ("parameters", "GFLOPs", "image size", "features"):
        table.add_column(column, justify="right")
    for row in rows:
        size = "x".join(map(str, row["image_size"]))
        count = f"{row['parameters'] / 1e6:,.2f} M" if row["parameters"] >= 1e6 else f"{row['parameters']:,}"
        flops = f"{row['gflops']:,.0f}" if row["gflops"] >= 100 else f"{row['gflops']:.3g}"
        table.add_row(row["name"], row["family"], count, flops, size, str(row["features"]))
    return table
