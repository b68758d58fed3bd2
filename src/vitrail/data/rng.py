"""Chance as a pure function: the same coordinates give the same numbers, in any process, in any order."""

from __future__ import annotations

import numpy as np


def generator(seed: int, *coordinates: int) -> np.random.Generator:
    """A fresh generator for one decision, such as the crop of image ``index`` in ``epoch``.

    ``coordinates`` name the decision, e.g. ``(epoch, index)``; all are non-negative. No generator outlives the
    decision, so nothing depends on what was drawn before, or on which worker draws.
    """
    return np.random.default_rng((seed, *coordinates))
