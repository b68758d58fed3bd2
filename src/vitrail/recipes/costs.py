"""What a model costs: learned values, and operations for one image."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from importlib import resources

import torch
from torch.utils.flop_counter import FlopCounterMode

from vitrail import models


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
