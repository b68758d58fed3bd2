"""Chance as a pure function: the same coordinates give the same numbers, in any process, in any order."""

from __future__ import annotations

import numpy as np

from vitrail.errors import SettingError

# What a decision is about; the numbers keep decisions with equal coordinates apart.
PURPOSES = {"split": 1, "order": 2, "augment": 3, "mix": 4, "dropout": 5, "scene": 6, "init": 7}


def generator(seed: int, purpose: str, *coordinates: int) -> np.random.Generator:
    """A fresh generator for one decision, such as ``(seed, "augment", epoch, index)``.

    ``purpose`` is one of :data:`PURPOSES`, ``seed`` (else :class:`SettingError`) and ``coordinates`` are non-negative.
    No generator outlives its decision, so nothing depends on what was drawn before, or on which worker draws.
    """
    if seed < 0:
        raise SettingError(f"the seed must be 0 or more, not {seed}.")
    return np.random.default_rng((seed, PURPOSES[purpose], *coordinates))


def torch_seed(seed: int, purpose: str, *coordinates: int) -> int:
    """A seed for ``torch.manual_seed`` from the same coordinates."""
    return int(generator(seed, purpose, *coordinates).integers(2**63))
