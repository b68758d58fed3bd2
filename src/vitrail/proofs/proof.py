"""What a proof is: a figure measured on held-out data, beside a bar and a strong baseline."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Proof:
    """The outcome of one proof.

    Attributes:
        name: the system.
        what: what was measured, in a few words.
        measured: the figure; None if the proof could not be run.
        baseline: the same figure of a strong baseline that needs none of the system.
        bar: the figure that must be reached.
        better: whether higher or lower figures are better.
        seconds: what the measured run took.
        reason: why it was skipped, where it was.
    """

    name: str
    what: str
    measured: float | None
    baseline: float | None
    bar: float
    better: Literal["higher", "lower"] = "higher"
    seconds: float = 0.0
    reason: str = ""

    @property
    def passed(self) -> bool | None:
        """Whether the bar is reached and the baseline beaten; None if the proof was skipped."""
        if self.measured is None or self.baseline is None:
            return None
        if self.better == "higher":
            return self.measured >= self.bar and self.measured > self.baseline
        return self.measured <= self.bar and self.measured < self.baseline
