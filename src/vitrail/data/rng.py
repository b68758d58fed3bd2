"""Chance as a pure function: the same coordinates give the same numbers, in any process, in any order."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from vitrail.errors import SettingError

# What a decision is about; the numbers keep decisions with equal coordinates apart.
PURPOSES = {
    "split": 1,
    "order": 2,
    "augment": 3,
    "mix": 4,
    "dropout": 5,
    "scene": 6,
    "init": 7,
    "mask": 8,
    "window": 9,
    "palette": 10,
    "pair": 11,
    "share": 12,
}


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


def uniform(draws: Tensor, count: int) -> Tensor:
    """``count`` numbers in 0 … 1 (float32) for each sample of a batch, as a function of its draw alone.

    So a mask does not depend on which process or device draws it, nor on the other samples of the batch. The numbers
    are SplitMix64's (Steele et al. 2014), whose n-th is a mixture of the seed and n.

    Args:
        draws: ``(B,)`` int64, one a sample.
        count: the length of the rows ``(B, count)`` that come back.
    """
    steps = torch.arange(1, count + 1, device=draws.device, dtype=torch.int64)
    x = _mixed(draws).unsqueeze(1) + steps * _signed(0x9E3779B97F4A7C15)
    return (_shifted(_mixed(x), 40)).float() / 2**24


def _mixed(x: Tensor) -> Tensor:
    """The finaliser of SplitMix64 on int64, whose products wrap around."""
    x = (x ^ _shifted(x, 30)) * _signed(0xBF58476D1CE4E5B9)
    x = (x ^ _shifted(x, 27)) * _signed(0x94D049BB133111EB)
    return x ^ _shifted(x, 31)


def _shifted(x: Tensor, bits: int) -> Tensor:
    """Shifted right, with zeros from the left."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _signed(number: int) -> int:
    """64 bits as a signed number."""
    return number - (1 << 64) if number >> 63 else number
