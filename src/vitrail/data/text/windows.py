"""Windows of a long row of tokens as batches: the n-th is determined by (seed, n)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset as TorchDataset

from vitrail.data.rng import generator
from vitrail.data.text.batch import TextBatch
from vitrail.errors import DataError, SettingError


class EndlessBatches(TorchDataset[TextBatch], ABC):
    """Endless batches of a corpus; ``batches[n]`` for any n ≥ 0, which is determined by (seed, n)."""

    @property
    @abstractmethod
    def steps_per_epoch(self) -> int:
        """Batches that hold about as many tokens as there are."""


@dataclass(frozen=True)
class TrainingWindows(EndlessBatches):
    """Endless batches of windows that begin anywhere; ``windows[n]`` for any n ≥ 0.

    With several processes each makes its own rows (``rank`` of ``world``) of the same global batch.

    Args:
        ids: ``(N,)`` int32, the corpus.
        length: T, tokens in a window.
        batch_size: B, windows in the global batch.
        seed: with n, determines batch n.
        rank, world: which equal part of each batch this process makes.

    Raises :class:`DataError` for a corpus shorter than a window, :class:`SettingError` for a batch size that makes no
    sense.
    """

    ids: NDArray[np.int32]
    length: int
    batch_size: int
    seed: int = 0
    rank: int = 0
    world: int = 1

    def __post_init__(self) -> None:
        refuse_short(self.ids, self.length)
        if self.batch_size < 1 or self.batch_size % self.world:
            raise SettingError(f"the batch size {self.batch_size} does not divide into {self.world} equal parts.")

    @property
    def steps_per_epoch(self) -> int:
        """Batches that hold about as many tokens as there are."""
        return max(1, len(self.ids) // (self.length * self.batch_size))

    def __getitem__(self, step: int) -> TextBatch:
        rng = generator(self.seed, "window", step)
        starts = rng.integers(len(self.ids) - self.length, size=self.batch_size, endpoint=True)
        draws = rng.integers(2**63, size=self.batch_size)
        rows = self.batch_size // self.world
        mine = slice(self.rank * rows, (self.rank + 1) * rows)
        return windows_at(self.ids, starts[mine], self.length, draws[mine], step)


@dataclass(frozen=True)
class EvaluationWindows(TorchDataset[TextBatch]):
    """The corpus cut into windows, one after the other; what is left at its end is too short and left out.

    With several processes each sees every ``world``-th window. Arguments and errors as of `TrainingWindows`; of more
    windows than ``most`` only so many are taken, evenly spread.
    """

    ids: NDArray[np.int32]
    length: int
    batch_size: int
    rank: int = 0
    world: int = 1
    most: int | None = None

    def __post_init__(self) -> None:
        refuse_short(self.ids, self.length)

    def __len__(self) -> int:
        return -(-len(self._mine()) // self.batch_size)

    def __getitem__(self, step: int) -> TextBatch:
        numbers = self._mine()[step * self.batch_size : (step + 1) * self.batch_size]
        return windows_at(self.ids, numbers * self.length, self.length, numbers, step)

    def _mine(self) -> NDArray[np.int64]:
        count = len(self.ids) // self.length
        spread = np.linspace(0, count - 1, min(count, self.most or count))
        return spread.astype(np.int64)[self.rank :: self.world]


def windows_at(
    ids: NDArray[np.int32], starts: NDArray[np.int64], length: int, draws: NDArray[np.int64], step: int
) -> TextBatch:
    """The windows that begin at ``starts``."""
    rows = np.stack([ids[start : start + length] for start in starts.tolist()]).astype(np.int64)
    names = tuple(f"tokens {start}-{start + length - 1}" for start in starts.tolist())
    return TextBatch(torch.from_numpy(rows), names, torch.from_numpy(draws), step=step)


def refuse_short(ids: NDArray[np.int32], length: int) -> None:
    """Raises :class:`DataError` for a corpus that does not fill one window."""
    if len(ids) < length:
        raise DataError(f"the text has {len(ids)} tokens, fewer than the {length} of a window; give more, or a smaller "
                        "--context.")  # fmt: skip
