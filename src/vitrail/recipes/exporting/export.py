"""Export: a trained model as what other programs run, or as a folder that another library opens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from vitrail.console import say
from vitrail.errors import SettingError
from vitrail.export.checkpoint import layout_of, write_checkpoint
from vitrail.objectives import TextObjective
from vitrail.recipes.exporting.file import export_file
from vitrail.recipes.exporting.settings import Export
from vitrail.recipes.opened import classification, merging, open_learner
from vitrail.recipes.settings import check_numbers
from vitrail.tasks import Classification, TextTask
from vitrail.weights.load import load


def export(settings: Export) -> dict[str, Any]:
    """Write the file or folder, open it again as any other, and compare the logits.

    Raises :class:`SettingError` for what is there already, and for a model that the library does not have.
    """
    check_numbers(settings)
    if settings.to in ("onnx", "program"):
        if settings.int8 and settings.to != "onnx":
            raise SettingError("--int8 is for --to onnx; leave it out, or export to ONNX.")
        return export_file(settings, lambda: exportable(settings))
    if settings.int8 or settings.merge or settings.data is not None:
        raise SettingError(f"--int8, --merge, DATA are for --to onnx and program, not {settings.to}; leave them out.")
    return export_folder(settings)


def exportable(settings: Export) -> Classification:
    """The classification of the run. Raises :class:`SettingError` for a model that is none."""
    learner = open_learner(settings.run, settings.stated)
    if isinstance(learner, TextTask | TextObjective):
        raise SettingError(
            f"{settings.run} is a model of text, and only classifiers of images are exported; "
            "its model.safetensors and tokenizer.json are open to other programs as they are."
        )
    return classification(settings.run, merging(learner, settings.merge))


def export_folder(settings: Export) -> dict[str, Any]:
    """A folder for timm or Transformers, which are given the very weights."""
    assert settings.to in ("timm", "transformers")
    folder = settings.out or Path(f"{settings.run.replace(':', '-').rstrip('/')}-{settings.to}")
    if folder.exists() and not settings.overwrite and (not folder.is_dir() or any(folder.iterdir())):
        raise SettingError(f"{folder} is not empty; choose another --out, or write into it with --overwrite.")
    task = exportable(settings)
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
