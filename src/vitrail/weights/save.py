"""A learner on disk: `model.safetensors` (weights) beside `model.json` (everything else that using it needs)."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors.torch import save
from torch import Tensor

import vitrail
from vitrail import atomic
from vitrail.data.text.tokenizer import FILE as TOKENIZER
from vitrail.tasks.learner import Learner

FORMAT = 1  # of model.json; a greater number than this is a newer version's
WEIGHTS = "model.safetensors"
DESCRIPTION = "model.json"


def save_description(learner: Learner, folder: Path) -> None:
    """Write `model.json`: architecture, classes in their order, preprocessing, temperature; a tokenizer beside it."""
    description = {"format": FORMAT, "vitrail": vitrail.__version__, **learner.to_json()}
    if "tokenizer" in description:  # in a file of its own, where other libraries look for it
        atomic.write_text(folder / TOKENIZER, description.pop("tokenizer") + "\n")
    atomic.write_text(folder / DESCRIPTION, json.dumps(description, indent=2, ensure_ascii=False) + "\n")


def save_weights(weights: dict[str, Tensor], folder: Path) -> None:
    """Write `model.safetensors` from a task's state dict of whole (unsharded) tensors."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in weights.items()}
    atomic.write_bytes(folder / WEIGHTS, save(tensors))  # not `save_file`, which has errors of its own for a full disk
