"""Info: what a model, a run, a file of weights or a data set is."""

from __future__ import annotations

import dataclasses
import tarfile
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from vitrail import models
from vitrail.data.dataset import open_dataset, summary
from vitrail.errors import CheckpointError, UnknownName
from vitrail.export.predictor import open_onnx
from vitrail.nn.backbone import Network
from vitrail.nn.features import Features
from vitrail.objectives import LEARNED_BY
from vitrail.recipes import run
from vitrail.recipes.config import config_changes
from vitrail.recipes.informing.settings import Info
from vitrail.recipes.opened import as_stated
from vitrail.recipes.settings import Stated
from vitrail.weights import tensorflow, text
from vitrail.weights.describe import class_names, preprocess
from vitrail.weights.describe import describe as describe_weights
from vitrail.weights.files import SUFFIXES, USUAL_NAMES, Files, find, hub_reference
from vitrail.weights.load import renamed
from vitrail.weights.read import read_tensors
from vitrail.weights.saved import describe, read_description

SENTENCES = ("notes", "leaks", "unreadable")  # shown one below the other


def info(settings: Info) -> dict[str, Any]:
    """What the subject is, as a dictionary; printed for people unless ``--json``."""
    path = Path(settings.subject)
    if settings.subject in models.names():
        answer = about_model(settings.subject, settings.config)
    elif settings.subject in models.text_names():
        answer = about_text_model(settings.subject, settings.config)
    elif (path / run.RECORD).is_file() or (path / "model.json").is_file():
        answer = about_run(path)
    elif path.suffix == ".onnx":
        answer = about_exported(path)
    elif is_checkpoint(settings.subject):
        answer = about_checkpoint(settings)
    elif path.exists() or settings.subject.partition(":")[0] in run.WORDS:
        answer = about_data(settings)
    else:
        known = models.names() + models.text_names()
        raise UnknownName("model, run, weights or data", settings.subject, known)
    if not settings.json:
        show(answer)
    return answer


def about_model(name: str, config: tuple[str, ...]) -> dict[str, Any]:
    """A model's config, its layers with their parameters, and the shapes of its features for one image."""
    with torch.device("meta"):
        model = models.create(name, **config_changes(name, config))
        features = model.eval()(torch.empty(1, model.config.channels, *model.config.image_size))
    return as_built(name, model, features)


def about_text_model(name: str, config: tuple[str, ...]) -> dict[str, Any]:
    """The same of a model of text, for as many tokens as it sees at once."""
    with torch.device("meta"):
        model = models.create_text(name, **config_changes(name, config))
        features = model.eval()(torch.zeros(1, model.config.context, dtype=torch.int64))
    return as_built(name, model, features)


def as_built(name: str, model: Network, features: Features) -> dict[str, Any]:
    """A model's config and layers, and the shapes of the features that it gave for one input."""
    return {
        "kind": "model",
        "name": name,
        "config": {key: getattr(model.config, key) for key in model.config.__dataclass_fields__},
        "parameters": count(model),
        "layers": layers(model),
        "features": {
            "tokens": list(features.tokens.shape[1:]),
            "prefix": features.prefix,
            "grid": list(features.grid),
            "pooled": features.pooled.shape[1],
            "maps": [list(each.shape[1:]) for each in features.maps],
        },
    }


def about_run(folder: Path) -> dict[str, Any]:
    """What a run's folder holds: the model, what it was trained for and on, and how its input is prepared."""
    description = read_description(folder)
    record = run.read(folder) if (folder / run.RECORD).is_file() else {}
    return {
        "kind": "run",
        "run": str(folder),
        "model": description["model"],
        "task": description.get("task"),
        "objective": description.get("objective"),
        "options": description.get("options"),
        "parameters": count(describe(folder)),
        "classes": description.get("classes"),
        "temperature": description.get("temperature"),
        "preprocess": description.get("preprocess"),
        "config": description["config"],
        "data": record.get("settings", {}).get("data"),
        "images": record.get("data", {}).get("images"),
        "leaks": record.get("data", {}).get("leaks"),
        "chosen": record.get("choice", {}).get("reason"),
        "versions": record.get("versions"),
    }


def about_exported(path: Path) -> dict[str, Any]:
    """What an exported file is: the model that it was made of, its classes, and how its input is prepared."""
    exported = open_onnx(path)
    return {
        "kind": "exported",
        "file": str(path),
        "model": exported.model,
        "task": "classification",
        "bytes": path.stat().st_size,
        "classes": list(exported.classes),
        "many_labels": exported.many_labels,
        "temperature": exported.temperature,
        "preprocess": exported.preprocess.to_json(),
    }


def about_checkpoint(settings: Info) -> dict[str, Any]:
    """What is in a file of weights: its model, classes and preprocessing as far as they are known, and its tensors."""
    files = find(settings.subject)
    tensors = read_tensors(files.weights)
    answer: dict[str, Any] = {
        "kind": "weights",
        "weights": settings.subject,
        "files": [{"name": path.name, "megabytes": round(path.stat().st_size / 1e6, 3)} for path in parts(files)],
        "parameters": sum(tensor.numel() for tensor in tensors.values()),
    }
    stated = Stated(layout=settings.layout, model=settings.model, config=settings.config)
    try:
        is_text = text.is_text(settings.subject, settings.model)
        answer |= (described_text if is_text else described)(files, tensors, stated)
    except CheckpointError as error:
        answer |= {"model": None, "reason": str(error)}
    rows = [
        {"name": k, "shape": list(v.shape), "type": str(v.dtype).removeprefix("torch.")} for k, v in tensors.items()
    ]
    return answer | {"tensors": rows}


def parts(files: Files) -> list[Path]:
    """The files of weights, each with those beside it that have its tensors' bytes, as TensorFlow's have."""
    beside = [tensorflow.data_files(path) for path in files.weights if path.suffix == tensorflow.SUFFIX]
    return [*files.weights, *(path for paths in beside for path in paths)]


def described(files: Files, tensors: dict[str, Tensor], stated: Stated) -> dict[str, Any]:
    """The model that the tensors belong to, and whether all of them fit. Raises :class:`CheckpointError`."""
    description = describe_weights(files, tensors, **as_stated(stated))
    known, prepared = class_names(files, description, tensors), preprocess(files, description)
    renamed(files.name, tensors, description, known, prepared)
    return {
        "layout": ", ".join(description.layouts),
        "model": description.model,
        "classes": list(known),
        "preprocess": prepared.to_json(),
        "config": dataclasses.asdict(description.config),
    }


def described_text(files: Files, tensors: dict[str, Tensor], stated: Stated) -> dict[str, Any]:
    """The same of a model of text, and the objective that it was trained with."""
    name, found, layouts = text.what_it_is(files, tensors, **as_stated(stated))
    with torch.device("meta"):
        backbone = models.create_text(name, **found.changes)
    wanted = {f"backbone.{key}": value for key, value in backbone.state_dict().items()}
    text.renamed(files, tensors, wanted, layouts, backbone)
    return {
        "layout": ", ".join(layouts),
        "model": name,
        "objective": LEARNED_BY[models.family(name)].name,
        "config": dataclasses.asdict(backbone.config),
    }


def is_checkpoint(subject: str) -> bool:
    """Whether something is a reference to published weights, or a file or folder of such."""
    path = tensorflow.index_of(Path(subject))
    if path.is_dir():
        usual = any((path / name).is_file() for name in ("config.json", *USUAL_NAMES))
        return usual or tensorflow.latest(path) is not None
    if path.is_file():
        return path.name in USUAL_NAMES or (path.suffix in SUFFIXES and not is_archive(path))
    return hub_reference(subject) is not None


def is_archive(path: Path) -> bool:
    """Whether a .tar holds files, such as the shards of a data set, and not PyTorch's tensors."""
    return path.suffix == ".tar" and tarfile.is_tarfile(path)


def about_data(settings: Info) -> dict[str, Any]:
    """What was found in a data set: images, classes, sizes, and images that are in two splits."""
    dataset = open_dataset(
        settings.subject,
        settings.format,
        image_column=settings.image_column,
        label_column=settings.label_column,
    )
    return {"kind": "data", **summary(dataset)}


def layers(model: nn.Module) -> list[dict[str, Any]]:
    """The parts of a model with their parameters: its own first, then its modules, lists of blocks taken apart."""
    found = [(name, parameter.numel()) for name, parameter in model.named_parameters(recurse=False)]
    for name, part in model.named_children():
        if isinstance(part, nn.ModuleList | nn.Sequential):
            found += [(f"{name}.{inner}", count(each)) for inner, each in part.named_children()]
        else:
            found.append((name, count(part)))
    return [{"name": name, "parameters": parameters} for name, parameters in found if parameters]


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
