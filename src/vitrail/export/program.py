"""A task as a program of `torch.export`: PyTorch runs it without a line of Vitrail's."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram

import vitrail
from vitrail import atomic
from vitrail.export.predictor import IMAGES
from vitrail.tasks import Classification
from vitrail.weights.save import FORMAT

DESCRIPTION = "vitrail.json"  # among the program's extra files


def write_program(task: Classification, path: Path) -> None:
    """Write a ``.pt2`` file that `torch.export.load` opens: images ``(B, C, H, W)`` uint8 to logits ``(B, K)``.

    Among its ``extra_files`` is ``vitrail.json`` with classes and preprocessing. ``task`` is in evaluation mode, on the
    CPU, in float32.
    """
    words = json.dumps(describe(task), ensure_ascii=False)
    program = trace(task)
    atomic.write(path, lambda file: torch.export.save(program, file, extra_files={DESCRIPTION: words}))


def read_program(path: Path) -> Callable[[Tensor], Tensor]:
    """What a file computes. Only for files that this process wrote: reading one can run code that is in it."""
    module = torch.export.load(path).module()
    return lambda images: module(images)  # not a part of another module, for it refuses to be told `eval()`


def trace(task: Classification) -> ExportedProgram:
    """All that a task computes from uint8 images to logits, normalisation included, for any number of images."""
    preprocess = task.preprocess
    images = torch.zeros(2, preprocess.channels, *preprocess.size, dtype=torch.uint8)
    with torch.no_grad():
        program = torch.export.export(task, (images,), dynamic_shapes={IMAGES: {0: Dim("batch")}})
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # it has the paths of this machine's files
    return program


def describe(task: Classification) -> dict[str, Any]:
    """What `weights.save` writes beside the weights of a run, model, classes, temperature, preprocessing; and what the
    program has besides: how many pairs of tokens it merges in each block."""
    return {"format": FORMAT, "vitrail": vitrail.__version__, **task.to_json(), "merge": task.backbone.merge or 0}
