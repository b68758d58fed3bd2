"""The learning rate's course: linear warm-up, then half a cosine (Loshchilov and Hutter 2017)."""

from __future__ import annotations

import math


def warmup_cosine(step: int, total: int, warmup: int, floor: float = 0.01) -> float:
    """The factor of the base learning rate at ``step``: up to 1 within ``warmup`` steps, then down to ``floor``."""
    if step < warmup:
        return (step + 1) / warmup
    done = (step - warmup) / max(total - warmup, 1)
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))
