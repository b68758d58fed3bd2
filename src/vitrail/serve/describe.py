"""What the service says of its model."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from vitrail.data.read import is_image
from vitrail.errors import SettingError
from vitrail.explain.maps import methods_of
from vitrail.recipes.evaluating.evaluate import figures_of
from vitrail.serve.service import Service
from vitrail.tasks import Classification
from vitrail.tasks.classifier import Classifier

MEASURED = {"top1": "accuracy", "map": "mean_average_precision", "macro_f1": "macro_f1", "ece": "calibration_error"}


def description(run: str, service: Service, examples: Iterable[str]) -> dict[str, Any]:
    """The answer of ``GET /model``."""
    model, limits = service.model, service.limits
    task, preprocess = model.task, model.task.preprocess
    merge = (task.backbone.merge or 0) if isinstance(task, Classification) else 0
    return {
        "name": Path(run).stem if run.endswith(".onnx") else Path(run).name,
        "model": task.model,
        "task": "classification",
        "classes": list(task.classes),
        "many_labels": task.many_labels,
        "image_size": list(preprocess.size),
        "channels": preprocess.channels,
        "parameters": sum(parameter.numel() for parameter in task.parameters()) or None,
        "precision": str(model.dtype).removeprefix("torch.") if isinstance(task, Classification) else "as exported",
        "device": str(model.device),
        "methods": methods(task),
        "layers": model.layers,
        "card": card(run, merge) | ({"merge": f"{merge} pairs of tokens a block"} if merge else {}),
        "examples": list(examples),
        "limits": {"bytes": round(limits.megabytes * 1e6), "pixels": limits.pixels, "images": limits.images},
    }


def methods(task: Classifier) -> list[dict[str, Any]]:
    """The methods of explanation that the model has: none for an exported one."""
    if not isinstance(task, Classification):
        return []
    return [
        {
            "name": name,
            "what": method.what,
            "of_class": method.of_class,
            "layers": method.of_layer,
            "heads": method.of_head,
        }
        for name, method in methods_of(task.backbone).items()
    ]


def card(run: str, merge: int = 0) -> dict[str, Any]:
    """What is known of a run: what it was trained on, and how good it was on held-out images, with as many pairs of
    tokens merged in each block. {} if nothing is."""
    record, measured = _json(Path(run) / "run.json"), _json(figures_of(Path(run), merge) / "evaluation.json")
    settings, data = record.get("settings") or {}, record.get("data") or {}
    facts = {
        "trained_on": Path(str(settings["data"])).name if settings.get("data") else None,
        "training_images": (data.get("images") or {}).get("train"),
        "epochs": (record.get("choice") or {}).get("epochs"),
        "seed": settings.get("seed"),
        "measured_on": measured.get("split"),
        "measured_images": measured.get("images"),
        **{name: measured.get(key) for key, name in MEASURED.items()},
    }
    return {name: fact for name, fact in facts.items() if fact is not None}


def examples_in(folder: Path | None) -> dict[str, Path]:
    """The images that lie in a folder, by file name. Raises :class:`SettingError` for a folder without any."""
    if folder is None:
        return {}
    if not folder.is_dir():
        raise SettingError(f"--examples {folder} is no folder; give one with a few images.")
    found = {file.name: file for file in sorted(folder.iterdir()) if file.is_file() and is_image(file.name)}
    if not found:
        raise SettingError(f"--examples {folder} has no images in it; give a folder with a few.")
    return found


def _json(file: Path) -> dict[str, Any]:
    """A JSON object of a run's folder; {} if there is none that can be read: the model answers without it."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
