"""Which attention is looked at."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Look:
    """A layer and a head.

    Attributes:
        layer: of those with attention, counted from 1; None for the last (of rollout: up to which one).
        head: counted from 1; None for the mean of all.
    """

    layer: int | None = None
    head: int | None = None
