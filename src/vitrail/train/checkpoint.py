"""All that resuming needs, in one file that is replaced in one step."""

from __future__ import annotations

import io
import pickle
import zipfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vitrail import atomic
from vitrail.errors import CheckpointError
from vitrail.train import distributed, sharding
from vitrail.train.ema import Ema
from vitrail.train.state import STATE, State


def save(folder: Path, state: State, learner: nn.Module, optimizer: torch.optim.Optimizer, ema: Ema | None) -> None:
    """Write ``last/state.pt``. Every process must call; the first one writes."""
    weights, optimizer_state = sharding.whole_state(learner, optimizer)
    average = None if ema is None else sharding.whole(ema.weights)
    if distributed.rank() == 0:
        everything = {
            "state": asdict(state),
            "world": distributed.world(),
            "weights": weights,
            "optimizer": optimizer_state,
            "ema": average,
        }
        buffer = io.BytesIO()  # not straight to the file: for a full disk torch has an error of its own
        torch.save(everything, buffer)
        atomic.write_bytes(folder / STATE, buffer.getbuffer())
    distributed.barrier()


def restore(folder: Path, learner: nn.Module, optimizer: torch.optim.Optimizer, ema: Ema | None) -> State:
    """Load ``last/state.pt`` into the given objects; a fresh :class:`State` if there is none yet.

    Raises :class:`CheckpointError` for a file that is damaged, would run code when opened, belongs to another model, or
    was written by another number of processes.
    """
    path = folder / STATE
    if distributed.rank() == 0:
        atomic.remove_leftovers(path)
    if not path.is_file():
        return State()
    everything = _read(path)
    try:
        state, world = State(**everything["state"]), everything["world"]
        fits = _shapes(everything["weights"]) == _shapes(learner.state_dict())
    except (LookupError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} is not the state of a training run; train again with --overwrite.") from error
    if not fits:
        raise CheckpointError(f"{path} belongs to another model; train again with --overwrite.")
    if world != distributed.world():
        raise CheckpointError(
            f"{path} was written by {world} process(es); resume with as many, not {distributed.world()}."
        )
    sharding.set_whole_state(learner, optimizer, everything["weights"], everything["optimizer"])
    if ema is not None:
        ema.load(everything["ema"])
    return state


def _read(path: Path) -> dict[str, Any]:
    """The file's content, once its check sums have shown that every byte is as it was written."""
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        if damaged is None:
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(f"{path} would run code when opened; train again with --overwrite.") from error
    except Exception as error:  # for damaged bytes the parsers of zipfile and torch raise nearly anything
        raise CheckpointError(f"{path} is damaged or cut short; train again with --overwrite.") from error
    raise CheckpointError(f"{path} is damaged; train again with --overwrite.")


def _shapes(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in tensors.items()}
