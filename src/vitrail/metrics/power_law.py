"""How an error falls with the number of training images: error = a · n^-b + c (Hestness et al. 2017, arXiv:1712.00409).

b is how fast it falls, c what no amount of data would take away.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

STEEPEST, FLATTEST = 5.0, 1e-3  # b between which the fit is looked for
FEWEST = 3  # different numbers of images; the law has as many parameters


@dataclass(frozen=True)
class PowerLaw:
    """error(n) = a · n^-b + c, with a, b and c at least 0."""

    a: float
    b: float
    c: float

    def __call__(self, images: ArrayLike) -> NDArray[np.float64]:
        """The error after training on so many images; numbers of any shape."""
        return self.a * np.asarray(images, np.float64) ** -self.b + self.c

    def __str__(self) -> str:
        return f"{self.a:.3g} · n^-{self.b:.3g}" + (f" + {self.c:.3g}" if self.c > 5e-4 else "")


def fit(images: Sequence[float], errors: Sequence[float]) -> PowerLaw | None:
    """The law with the least squared errors, or None for fewer than three different numbers of images.

    For a given b the others are found by linear least squares, so only b is searched, ever more finely.
    """
    n, y = np.asarray(images, np.float64), np.asarray(errors, np.float64)
    if len(np.unique(n)) < FEWEST:
        return None
    middle = np.exp(np.log(n).mean())  # so that neither n^-b nor a is ever huge while b is searched
    low, high = np.log(FLATTEST), np.log(STEEPEST)
    for _ in range(6):
        slopes = np.exp(np.linspace(low, high, 81))
        best = min(slopes, key=lambda b: _amount_and_rest((n / middle) ** -b, y)[2])
        step = (high - low) / 80
        low, high = max(np.log(best) - 2 * step, low), min(np.log(best) + 2 * step, high)
    a, c, _ = _amount_and_rest((n / middle) ** -best, y)
    return PowerLaw(float(a * middle**best), float(best), float(c))


def meet(first: PowerLaw, second: PowerLaw, start: float, stop: float) -> float | None:
    """The smallest number of images in ``start`` … ``stop`` where two laws give the same error; None if none does."""
    logs = np.linspace(np.log(start), np.log(stop), 1001)
    signs = np.sign(first(np.exp(logs)) - second(np.exp(logs)))
    changes = np.flatnonzero(signs[:-1] != signs[1:])
    if not len(changes):
        return None
    low, high = logs[changes[0]], logs[changes[0] + 1]
    for _ in range(50):
        half = (low + high) / 2
        same = np.sign(first(np.exp(half)) - second(np.exp(half))) == signs[changes[0]]
        low, high = (half, high) if same else (low, half)
    return float(np.exp(high))


def _amount_and_rest(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[float, float, float]:
    """a and c, both at least 0, for the least of Σ (a · x + c - y)², and this."""
    spread = x - x.mean()
    a = float(spread @ y / (spread @ spread))
    c = float(y.mean() - a * x.mean())
    if c < 0:
        a, c = float(x @ y / (x @ x)), 0.0
    if a < 0:
        a, c = 0.0, float(y.mean())
    return a, c, float(((a * x + c - y) ** 2).sum())
