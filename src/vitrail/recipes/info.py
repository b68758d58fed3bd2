"""Info: what a model, a run or a data set is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import nn
from tyro.conf import Positional

from vitrail import models
from vitrail.data.dataset import open_dataset, summary
from vitrail.errors import UnknownName
from vitrail.recipes import run
from vitrail.recipes.choose import config_changes
from vitrail.recipes.settings import Changes, LeftOpen
from vitrail.weights.load import describe, read_description

SENTENCES = ("notes", "leaks", "unreadable")  # shown one below the other


@dataclass(frozen=True)
class Info:
    """Say what something is: a model layer by layer, a run and how it came about, or what was found in a data set.

    Examples:
      vitrail info vit-s16
      vitrail info runs/clothing
      vitrail info photos/ --json
    """

    subject: Positional[str]
    """A model's name, a run's folder, or data."""
    config: Changes = ()
    """Changes to a model, such as: patch_size=8 image_size=64,64."""
    format: LeftOpen[str] = None
    """How the data are stored, where looking at them does not tell: folder, csv, parquet …"""
    image_column: LeftOpen[str] = None
    """The column of a table that holds the images' paths; left out: image, path, file …"""
    label_column: LeftOpen[str] = None
    """The column of a table that holds the labels; left out: label, class, category …"""
    json: bool = False
    """Print one JSON document."""


def info(settings: Info) -> dict[str, Any]:
    """What the subject is, as a dictionary; printed for people unless ``--json``."""
    path = Path(settings.subject)
    if settings.subject in models.names():
        answer = about_model(settings.subject, settings.config)
    elif (path / run.RECORD).is_file() or (path / "model.json").is_file():
        answer = about_run(path)
    elif path.exists() or settings.subject.partition(":")[0] in run.WORDS:
        answer = about_data(settings)
    else:
        raise UnknownName("model, run or data", settings.subject, models.names())
    if not settings.json:
        show(answer)
    return answer


def about_model(name: str, config: tuple[str, ...]) -> dict[str, Any]:
    """A model's config, its layers with their parameters, and the shapes of its features for one image."""
    with torch.device("meta"):
        model = models.create(name, **config_changes(name, config))
        features = model.eval()(torch.empty(1, model.config.channels, *model.config.image_size))
    return {
        "kind": "model",
        "name": name,
        "config": {key: getattr(model.config, key) for key in model.config.__dataclass_fields__},
        "parameters": count(model),
        "layers": [{"name": name, "parameters": count(part)} for name, part in layers(model)],
        "features": {
            "tokens": list(features.tokens.shape[1:]),
            "prefix": features.prefix,
            "grid": list(features.grid),
            "pooled": features.pooled.shape[1],
            "maps": [list(each.shape[1:]) for each in features.maps],
        },
    }


def about_run(folder: Path) -> dict[str, Any]:
    """What a run's folder holds: the model, its classes and preprocessing, and how it was trained."""
    description = read_description(folder)
    record = run.read(folder) if (folder / run.RECORD).is_file() else {}
    return {
        "kind": "run",
        "run": str(folder),
        "model": description["model"],
        "task": description["task"],
        "parameters": count(describe(folder)),
        "classes": description["classes"],
        "temperature": description["temperature"],
        "preprocess": description["preprocess"],
        "config": description["config"],
        "data": record.get("settings", {}).get("data"),
        "images": record.get("data", {}).get("images"),
        "leaks": record.get("data", {}).get("leaks"),
        "chosen": record.get("choice", {}).get("reason"),
        "versions": record.get("versions"),
    }


def about_data(settings: Info) -> dict[str, Any]:
    """What was found in a data set: images, classes, sizes, and images that are in two splits."""
    dataset = open_dataset(
        settings.subject,
        settings.format,
        image_column=settings.image_column,
        label_column=settings.label_column,
    )
    return {"kind": "data", **summary(dataset)}


def layers(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """The parts of a model, with lists of blocks taken apart."""
    found: list[tuple[str, nn.Module]] = []
    for name, part in model.named_children():
        if isinstance(part, nn.ModuleList | nn.Sequential):
            found += [(f"{name}.{inner}", each) for inner, each in part.named_children()]
        else:
            found.append((name, part))
    return [(name, part) for name, part in found if count(part)]


def count(module: nn.Module) -> int:
    """Number of learned values."""
    return sum(parameter.numel() for parameter in module.parameters())


def show(answer: dict[str, Any]) -> None:
    """The dictionary as a table of two columns; lists of records as tables of their own."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column()
    for key, value in answer.items():
        if value not in (None, [], {}):
            table.add_row(key.replace("_", " "), "\n".join(value) if key in SENTENCES else _cell(value))
    Console(markup=False, emoji=False, highlight=False).print(table)  # a class may well be called [b] or :bee:


def _cell(value: Any) -> Any:
    if isinstance(value, dict) and value and all(isinstance(each, dict) for each in value.values()):
        return _cell([{"": key, **each} for key, each in value.items()])
    if isinstance(value, dict):
        inner = Table(box=None, show_header=False, pad_edge=False)
        for key, each in value.items():
            inner.add_row(str(key), _cell(each))
        return inner
    if isinstance(value, list) and value and isinstance(value[0], dict):
        inner = Table(*value[0], box=None, pad_edge=False)
        for row in value:
            inner.add_row(*(_cell(each) for each in row.values()))
        return inner
    if isinstance(value, list | tuple):
        return ", ".join(str(each) for each in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else f"{value:g}" if isinstance(value, float) else str(value)
