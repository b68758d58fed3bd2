"""Export: a trained model as a folder that another library opens."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tyro.conf import Positional

from vitrail.console import say
from vitrail.errors import SettingError
from vitrail.export.checkpoint import Library, layout_of, write_checkpoint
from vitrail.recipes.opened import open_task
from vitrail.recipes.settings import UNSTATED, LeftOpen, Stated
from vitrail.weights.load import load


@dataclass(frozen=True)
class Export:
    """Write a trained model so that timm or Transformers open it, and check that nothing was lost.

    Examples:
      vitrail export runs/clothing --to timm
      vitrail export runs/clothing --to transformers --out clothing-vit
    """

    run: Positional[str]
    """A run's folder; or published weights: hf:ORG/NAME, timm:NAME, or a file (with --layout and --model)."""
    to: Library
    """The library to open it: timm.create_model("local-dir:FOLDER", pretrained=True), or from_pretrained("FOLDER")."""
    out: LeftOpen[Path] = None
    """The folder that is written; left out: RUN-timm or RUN-transformers."""
    overwrite: bool = False
    """Write into a folder that is not empty."""
    stated: Stated = UNSTATED
    json: bool = False
    """Print one JSON document: {"folder", "to", "model", "max_difference"}."""


def export(settings: Export) -> dict[str, Any]:
    """Write the folder, open it again as any other, and compare the logits of random images.

    Raises :class:`SettingError` for a folder that is not empty, and for a model that the library does not have.
    """
    folder = settings.out or Path(f"{settings.run.replace(':', '-').rstrip('/')}-{settings.to}")
    if folder.exists() and not settings.overwrite and (not folder.is_dir() or any(folder.iterdir())):
        raise SettingError(f"{folder} is not empty; choose another --out, or write into it with --overwrite.")
    task = open_task(settings.run, settings.stated)
    layout_of(task, settings.to)
    write_checkpoint(task, settings.to, folder)
    difference = largest_difference(task, load(folder))
    say(f"{task.model} for {settings.to} is in {folder}; read again, its logits differ by {difference:g}")
    return {"folder": str(folder), "to": settings.to, "model": task.model, "max_difference": difference}


@torch.inference_mode()
def largest_difference(task: Any, other: Any) -> float:
    """The largest absolute difference between two tasks' logits, over a few random images."""
    generator = torch.Generator().manual_seed(0)
    shape = (2, task.backbone.config.channels, *task.backbone.config.image_size)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    return float((task(images) - other(images)).abs().max())
