"""Inputs of a model in batches: of about equal length each, the n-th determined by (seed, n)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset as TorchDataset

from vitrail.data.rng import generator
from vitrail.data.text.batch import TextBatch
from vitrail.errors import SettingError

IGNORED = -100  # the label of a token that none is asked of; PyTorch's own number
POOL = 32  # batches whose rows are sorted by length together, so that few are filled up


@dataclass(frozen=True)
class Row:
    """One input.

    Attributes:
        example: the number of the example that it is made of.
        name: what to call it.
        ids, segments: ``(n,)``, as of `inputs.Joined`.
        labels: a class ``()``, one a token ``(n,)``, or first and last token ``(2,)``; None where it is not known.
        places: what of the example each token stands for, as its task needs it.
    """

    example: int
    name: str
    ids: NDArray[np.int32]
    segments: NDArray[np.int8]
    labels: NDArray[np.int64] | None = None
    places: NDArray[np.int64] | None = None


@dataclass(frozen=True)
class Rows:
    """The inputs that examples became.

    Attributes:
        rows: at least one an example, in their order.
        cut: how many examples were too long, and lost a part.
        pad: the id that fills rows up.
        per_token: whether there is a label a token.
    """

    rows: Sequence[Row]
    cut: int
    pad: int
    per_token: bool = False

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each row."""
        return np.array([len(row.ids) for row in self.rows])

    def batch(self, numbers: Sequence[int], draws: NDArray[np.int64] | None = None, step: int = 0) -> TextBatch:
        """Some of the rows as tensors, filled up to the longest of them."""
        rows = [self.rows[number] for number in numbers]
        lengths = np.array([len(row.ids) for row in rows])
        mask = np.arange(lengths.max()) < lengths[:, None]
        ids, segments = np.full(mask.shape, self.pad), np.zeros(mask.shape, np.int64)
        ids[mask] = np.concatenate([row.ids for row in rows])
        segments[mask] = np.concatenate([row.segments for row in rows])
        return TextBatch(
            torch.from_numpy(ids),
            tuple(row.name for row in rows),
            torch.from_numpy(np.asarray(numbers) if draws is None else draws),
            torch.from_numpy(segments),
            None if mask.all() else torch.from_numpy(mask),
            self._labels([row.labels for row in rows], mask),
            step,
        )

    def _labels(self, labels: Sequence[NDArray[np.int64] | None], mask: NDArray[np.bool_]) -> torch.Tensor | None:
        known = [each for each in labels if each is not None]
        if len(known) < len(labels):
            return None
        if not self.per_token:
            return torch.from_numpy(np.stack(known))
        filled = np.full(mask.shape, IGNORED)
        filled[mask] = np.concatenate(known)
        return torch.from_numpy(filled)


@dataclass(frozen=True)
class TrainingRows(TorchDataset[TextBatch]):
    """Endless shuffled batches; ``batches[n]`` for any n ≥ 0.

    Every epoch is a fresh order of all rows, of which the last incomplete batch is left out. Rows of about equal length
    come together. With several processes each makes its own rows (``rank`` of ``world``) of the same global batch.

    Args:
        rows: the inputs.
        batch_size: B, rows in the global batch.
        seed: with n, determines batch n.
        chances: ``(N,)``, how probable each row is where they are drawn with replacement; None for each once.
        rank, world: which equal part of each batch this process makes.

    Raises :class:`SettingError` for a batch size that makes no sense.
    """

    rows: Rows
    batch_size: int
    seed: int = 0
    chances: NDArray[np.float64] | None = None
    rank: int = 0
    world: int = 1

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.batch_size % self.world:
            raise SettingError(f"the batch size {self.batch_size} does not divide into {self.world} equal parts.")
        if self.batch_size > len(self.rows):
            raise SettingError(
                f"the batch size {self.batch_size} is larger than the {len(self.rows)} inputs there are."
            )

    @property
    def steps_per_epoch(self) -> int:
        return len(self.rows) // self.batch_size

    def __getitem__(self, step: int) -> TextBatch:
        epoch, position = divmod(step, self.steps_per_epoch)
        draws = generator(self.seed, "mask", step).integers(2**63, size=self.batch_size)
        mine = slice(self.rank, None, self.world)
        return self.rows.batch(self._numbers(epoch, position)[mine].tolist(), draws[mine], step)

    def _numbers(self, epoch: int, position: int) -> NDArray[np.int64]:
        """The rows of one batch: some of the epoch's order, sorted by length, and one batch of them by chance."""
        rng, count = generator(self.seed, "order", epoch), len(self.rows)
        order = rng.permutation(count) if self.chances is None else rng.choice(count, size=count, p=self.chances)
        pool, place = divmod(position, POOL)
        batches = min(POOL, self.steps_per_epoch - pool * POOL)
        first = pool * POOL * self.batch_size
        some = order[first : first + batches * self.batch_size]
        some = some[np.argsort(self.rows.lengths[some], kind="stable")]
        chosen = generator(self.seed, "order", epoch, pool).permutation(batches)[place]
        return some[chosen * self.batch_size : (chosen + 1) * self.batch_size]


@dataclass(frozen=True)
class EvaluationRows(TorchDataset[tuple[TextBatch, list[int]]]):
    """Every row once, the short ones first; ``batches[n]`` is a batch together with the numbers of its rows.

    With several processes each sees every ``world``-th row, and all equally many: some see one of the first again.
    """

    rows: Rows
    batch_size: int
    rank: int = 0
    world: int = 1

    def __len__(self) -> int:
        return -(-len(self._mine) // self.batch_size)

    def __getitem__(self, step: int) -> tuple[TextBatch, list[int]]:
        numbers = self._mine[step * self.batch_size : (step + 1) * self.batch_size].tolist()
        return self.rows.batch(numbers, step=step), numbers

    @cached_property
    def _mine(self) -> NDArray[np.int64]:
        order = np.argsort(self.rows.lengths, kind="stable")
        again = -len(order) % self.world
        return np.resize(order, len(order) + again)[self.rank :: self.world]
