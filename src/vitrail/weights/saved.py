"""A run's folder, read again: the task or the objective whose `model.json` and `model.safetensors` `save` wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from vitrail.data.text.tokenizer import FILE as TOKENIZER
from vitrail.errors import CheckpointError, RunError, UserError
from vitrail.objectives import OBJECTIVES
from vitrail.tasks import TASKS
from vitrail.tasks.learner import Learner
from vitrail.weights.files import SUFFIXES, has_weights, hub_reference
from vitrail.weights.rename import compare
from vitrail.weights.save import DESCRIPTION, FORMAT, WEIGHTS


def is_ours(reference: str | Path, layout: str | None = None) -> bool:
    """Whether a reference can only be a run's folder: it has a `model.json`, or nothing that others' weights have."""
    path = Path(reference)
    if layout is not None or path.is_file() or path.suffix in SUFFIXES or hub_reference(str(reference)) is not None:
        return False
    return (path / DESCRIPTION).is_file() or not path.is_dir() or not has_weights(path)


def load(folder: str | Path) -> Learner:
    """The task or objective of a run's folder, in evaluation mode, on the CPU.

    Raises :class:`RunError` for a folder that is missing, incomplete or of a newer version, :class:`CheckpointError`
    for damaged files.
    """
    folder = Path(folder)
    learner = describe(folder)
    load_weights(learner, read_weights(folder / WEIGHTS), folder / WEIGHTS)
    return learner.eval()


def describe(folder: Path) -> Learner:
    """The task or objective that `model.json` in ``folder`` describes, with fresh weights."""
    description = read_description(folder)
    kinds: dict[str, type[Learner]] = {**TASKS, **OBJECTIVES}
    kind = kinds.get(str(description.get("task") or description.get("objective")))
    if (folder / TOKENIZER).is_file():
        description["tokenizer"] = (folder / TOKENIZER).read_text(encoding="utf-8")
    if kind is None:
        raise CheckpointError(f"{folder / DESCRIPTION} names no known task; it is damaged, or not a model of Vitrail.")
    try:
        return kind.from_json(description)
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RuntimeError, UserError) as error:
        raise CheckpointError(f"{folder / DESCRIPTION} does not describe a model ({error}); it is damaged.") from error


def read_description(folder: Path) -> dict[str, Any]:
    """`model.json` of a run's folder as a dictionary."""
    if not folder.is_dir():
        raise RunError(f"there is no run folder {folder}; give the --out folder of a training run.")
    if not (folder / DESCRIPTION).is_file():
        raise RunError(f"{folder} is not a finished run: it has no {DESCRIPTION}; train one with `vitrail train`.")
    try:
        description = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
        version = int(description["format"])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise CheckpointError(f"{folder / DESCRIPTION} is damaged ({error}); restore it or train again.") from error
    if version > FORMAT:
        raise RunError(
            f"{folder} was written by a newer Vitrail ({description.get('vitrail')}); update with "
            "`pip install --upgrade vitrail`."
        )
    return description


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file. Raises :class:`CheckpointError` if it is cut short or damaged."""
    if not path.is_file():
        raise RunError(f"{path.parent} is incomplete: it has no {path.name}; let its training go on with --resume.")
    try:
        return load_file(path)
    except (SafetensorError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged or cut short ({error}); restore it from a copy.") from error


def load_weights(task: nn.Module, weights: dict[str, Tensor], path: Path) -> None:
    """Fill ``task`` strictly. Raises :class:`CheckpointError` with all tensors that are missing, extra or misshapen."""
    if difference := compare(task.state_dict(), weights):
        raise CheckpointError(f"{path} does not fit this model: {difference}.")
    task.load_state_dict(weights)
