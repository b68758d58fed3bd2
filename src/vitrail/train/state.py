"""Where a training run is, and the file that says it."""

from __future__ import annotations

from dataclasses import dataclass

STATE = "last/state.pt"


@dataclass
class State:
    """Where training is.

    Attributes:
        step: optimizer steps done.
        best: the best validation score so far, negative where less is better; and the step that had it.
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
