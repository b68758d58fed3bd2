"""All that resuming needs, in one file that is replaced in one step."""

from __future__ import annotations

import pickle
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import nn

from vitrail import atomic
from vitrail.errors import CheckpointError
from vitrail.train import distributed
from vitrail.train.ema import Ema

STATE = "last/state.pt"


@dataclass
class State:
    """Where training is.

    Attributes:
        step: optimizer steps done.
        best: the best validation score so far, and the step that had it.
        waited: validations since then.
        log_bytes: how much of the metrics file belongs to these steps.
        finished: whether training ended by itself.
    """

    step: int = 0
    best: float = float("-inf")
    best_step: int = 0
    waited: int = 0
    log_bytes: int = 0
    finished: bool = False


def save(folder: Path, state: State, learner: nn.Module, optimizer: torch.optim.Optimizer, ema: Ema | None) -> None:
    """Write ``last/state.pt``. Every process must call; the first one writes."""
    weights, optimizer_state = distributed.whole_state(learner, optimizer)
    average = None if ema is None else distributed.whole(ema.weights)
    if distributed.rank() == 0:
        everything = {
            "state": asdict(state),
            "world": distributed.world(),
            "weights": weights,
            "optimizer": optimizer_state,
            "ema": average,
        }
        atomic.write(folder / STATE, lambda path: torch.save(everything, path))
    distributed.barrier()


def restore(folder: Path, learner: nn.Module, optimizer: torch.optim.Optimizer, ema: Ema | None) -> State:
    """Load ``last/state.pt`` into the given objects; a fresh :class:`State` if there is none yet.

    Raises :class:`CheckpointError` for a file that is damaged or was written by another number of processes.
    """
    path = folder / STATE
    if not path.is_file():
        return State()
    try:
        everything = torch.load(path, map_location="cpu", weights_only=True)
        state = State(**everything["state"])
    except (RuntimeError, pickle.UnpicklingError, EOFError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged or cut short; train again with --overwrite.") from error
    if everything["world"] != distributed.world():
        raise CheckpointError(
            f"{path} was written by {everything['world']} processes; resume with as many, not {distributed.world()}."
        )
    distributed.set_whole_state(learner, optimizer, everything["weights"], everything["optimizer"])
    if ema is not None:
        ema.load(everything["ema"])
    return state
