"""Mixup (Zhang et al. 2018) and CutMix (Yun et al. 2019): two images become one, and so do their labels."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vitrail.data.rng import generator
from vitrail.errors import SettingError


@dataclass(frozen=True)
class Mix:
    """How neighbours in a batch are mixed; the defaults do nothing.

    Attributes:
        mixup: alpha of Mixup's Beta(alpha, alpha), 0 for no Mixup.
        cutmix: the same for CutMix.
        probability: that a pair is mixed at all.
        switch: probability of CutMix where both are on.

    Raises :class:`SettingError` when these make no sense.
    """

    mixup: float = 0.0
    cutmix: float = 0.0
    probability: float = 1.0
    switch: float = 0.5

    def __post_init__(self) -> None:
        if self.mixup < 0 or self.cutmix < 0:
            raise SettingError(f"the alphas of Mixup and CutMix must be 0 or more, not {self.mixup} and {self.cutmix}.")
        if not (0 <= self.probability <= 1 and 0 <= self.switch <= 1):
            raise SettingError(f"probability and switch must be in 0 ... 1, not {self.probability} and {self.switch}.")


def mix(
    images: NDArray[np.uint8],
    labels: NDArray[np.float32],
    settings: Mix,
    seed: int,
    step: int,
    first: int = 0,
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Mix each even row of the batch with the row after it, and the other way round; an odd last row stays as it is.

    Args:
        images: ``(B, H, W, C)`` uint8, a batch or one process's slice of it.
        labels: ``(B, K)`` float32.
        seed, step: with the number of the pair in the global batch, they determine everything.
        first: the row of the global batch where this slice starts. It must be even (ValueError), so that no pair is
            torn apart; then the slices together are what the whole would have been, byte for byte.

    Returns:
        New arrays of the same shapes.
    """
    if first % 2:
        raise ValueError(f"a slice of a batch that is mixed in pairs must start at an even row, not at {first}")
    images, labels = images.copy(), labels.copy()
    if settings.mixup == settings.cutmix == 0:
        return images, labels
    for row in range(0, len(images) - 1, 2):
        rng = generator(seed, "mix", step, (first + row) // 2)
        share = _mix_pair(images[row : row + 2], settings, rng)
        labels[row : row + 2] = share * labels[row : row + 2] + (1 - share) * labels[row : row + 2][::-1]
    return images, labels


def _mix_pair(pair: NDArray[np.uint8], settings: Mix, rng: np.random.Generator) -> float:
    """Mix the two images in place; returns the share that each keeps of itself."""
    if rng.random() >= settings.probability:
        return 1.0
    cut = rng.random() < settings.switch if settings.mixup and settings.cutmix else settings.cutmix > 0
    alpha = settings.cutmix if cut else settings.mixup
    share = rng.beta(alpha, alpha)
    return _cutmix(pair, share, rng) if cut else _mixup(pair, share)


def _mixup(pair: NDArray[np.uint8], share: float) -> float:
    """In whole 256ths, so that the pixels need no float and the labels get exactly the same share."""
    weight = round(256 * share)
    wide = pair.astype(np.uint16)
    pair[:] = (wide * np.uint16(weight) + wide[::-1] * np.uint16(256 - weight) + np.uint16(128)) >> 8
    return weight / 256


def _cutmix(pair: NDArray[np.uint8], share: float, rng: np.random.Generator) -> float:
    """Swap one rectangle; what it lost at the border counts for the share."""
    H, W = pair.shape[1:3]
    side = math.sqrt(1 - share)
    height, width = int(H * side), int(W * side)
    top, left = int(rng.integers(H)) - height // 2, int(rng.integers(W)) - width // 2
    rows, columns = slice(max(0, top), min(H, top + height)), slice(max(0, left), min(W, left + width))
    pair[:, rows, columns] = pair[::-1, rows, columns].copy()
    return 1 - (rows.stop - rows.start) * (columns.stop - columns.start) / (H * W)
