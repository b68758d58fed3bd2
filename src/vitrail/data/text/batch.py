"""Rows of tokens with all that is known about them, as tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor


@dataclass(frozen=True)
class TextBatch:
    """B rows of T tokens.

    Attributes:
        ids: ``(B, T)`` int64.
        names: what to call each row.
        draws: ``(B,)`` int64, a number of each row's own, from which masks are drawn (`data.rng.uniform`).
        segments: ``(B, T)`` int64, which part of the input a token is of; None where there is one part.
        mask: ``(B, T)`` bool, False for what only fills a row up; None where every token counts.
        labels: int64, what a task is told: ``(B,)`` a class a row, ``(B, T)`` one a token, ``(B, 2)`` first and last
            token of an answer.
        step: the number of this batch; with the seed it determines every token of it.
    """

    ids: Tensor
    names: tuple[str, ...]
    draws: Tensor
    segments: Tensor | None = None
    mask: Tensor | None = None
    labels: Tensor | None = None
    step: int = 0

    def __len__(self) -> int:
        return len(self.names)

    def split(self, parts: int) -> Iterator[TextBatch]:
        """At most ``parts`` batches of about equal size that make up this one."""
        rows = -(-len(self) // parts)
        for first in range(0, len(self), rows):
            here = slice(first, first + rows)
            yield replace(self._each(partial(_rows, here)), names=self.names[here])

    def to(self, device: torch.device) -> TextBatch:
        """The same batch with its tensors on ``device``."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def _each(self, change: Callable[[Tensor], Tensor]) -> TextBatch:
        """The same batch with a change to each of its tensors."""
        return replace(
            self,
            ids=change(self.ids),
            draws=change(self.draws),
            segments=None if self.segments is None else change(self.segments),
            mask=None if self.mask is None else change(self.mask),
            labels=None if self.labels is None else change(self.labels),
        )


def _rows(here: slice, tensor: Tensor) -> Tensor:
    return tensor[here]
