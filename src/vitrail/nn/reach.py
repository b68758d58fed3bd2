"""Who can look where in a layer of attention, so that its compact probabilities can be read on the image.

A layer hands its probabilities ``(B, …, heads, N, M)`` out as it computes them: for all pairs of tokens, window by
window, or to the places of a smaller map. Its `Reach` knows which tokens those rows and columns are: `carry` hands
shares of the tokens behind the layer on to those before it, and `centres` says where rows and columns are. Neither
writes out the N x N matrix of a layer that does without it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor

from vitrail.nn.window import Windows, merge, partition

Grid = tuple[int, int]


@runtime_checkable
class AttentionLayer(Protocol):
    """A module with attention to be looked into; its methods take what its ``forward`` takes."""

    heads: int

    def probabilities(self, *inputs: Any, **named: Any) -> Tensor:
        """How much each query looks at each key, ``(B, …, heads, N, M)``; rows sum to 1."""

    def attended(self, probabilities: Tensor, *inputs: Any, **named: Any) -> Tensor:
        """What ``forward`` would give if the layer paid attention with these probabilities."""

    def reach(self, *inputs: Any, **named: Any) -> Reach:
        """Which tokens the rows and columns of the probabilities are."""


@dataclass(frozen=True)
class Full:
    """Every token looks at every token.

    Attributes:
        grid: rows and columns of the places, which are the last tokens; None where the layer is not told.
        skipped: whether a residual connection leads around the layer, so that its queries are the tokens before it.
    """

    grid: Grid | None = None
    skipped: bool = True

    def carry(self, matrix: Tensor, shares: Tensor) -> Tensor:
        """Shares ``(B, Q, T)`` of the tokens behind the layer as those ``(B, Q, T)`` of the tokens before it.

        ``matrix`` has the probabilities of one head, or their mean over the heads. Any number Q of rows goes through.
        """
        return shares @ matrix

    def centres(self, probabilities: Tensor) -> tuple[Tensor, Tensor]:
        """Where queries ``(…, N, 2)`` and keys ``(…, M, 2)`` are, 0 … 1 from the top and the left; NaN for no place."""
        assert self.grid is not None, "the grid of the places"
        places = grid_centres(self.grid, probabilities.device)
        return tuple(_behind_nan(places, count) for count in probabilities.shape[-2:])  # type: ignore[return-value]


@dataclass(frozen=True)
class Windowed:
    """The places of a map look at those in their window; probabilities are ``(B, n, heads, N, N)`` for n windows.

    What falls on the padding of a window at the border is no place's, and lost to `carry`.
    """

    grid: Grid
    windows: Windows
    skipped: bool = True

    def carry(self, matrix: Tensor, shares: Tensor) -> Tensor:
        """As of `Full`; ``matrix`` is ``(B, n, N, N)``."""
        cut = partition(shares.transpose(1, 2).unflatten(1, self.grid), self.windows)  # (B, n, N, Q)
        return merge(matrix.transpose(-2, -1) @ cut, self.windows, self.grid).flatten(1, 2).transpose(1, 2)

    def centres(self, probabilities: Tensor) -> tuple[Tensor, Tensor]:
        """As of `Full`, ``(n, 1, N, 2)``."""
        places = F.pad(grid_centres(self.grid, probabilities.device), (0, 1), value=1.0)  # the third is 0 in padding
        cut = partition(places.unflatten(0, self.grid)[None], self.windows)[0]
        centres = cut[..., :2].masked_fill(cut[..., 2:] == 0, torch.nan).unsqueeze(1)
        return centres, centres


@dataclass(frozen=True)
class Reduced:
    """The places of a map look at those of a smaller one, each of which stands for the part of the image it covers."""

    grid: Grid
    keys: Grid
    skipped: bool = True

    def carry(self, matrix: Tensor, shares: Tensor) -> Tensor:
        """As of `Full`; ``matrix`` is ``(B, N, M)``. What the smaller map has a part of goes evenly to its places."""
        return spread(shares @ matrix, self.keys, self.grid)

    def centres(self, probabilities: Tensor) -> tuple[Tensor, Tensor]:
        """As of `Full`."""
        return grid_centres(self.grid, probabilities.device), grid_centres(self.keys, probabilities.device)


Reach = Full | Windowed | Reduced


def spread(shares: Tensor, before: Grid, after: Grid) -> Tensor:
    """Shares ``(…, h · w)`` of the places of one map as those ``(…, h' · w')`` of another of the same image.

    Each place gives to those that lie where it lies, by the area that they have in common; sums stay as they are. With
    sides that are multiples, as in a pyramid, a place's share goes evenly to the places that were merged into it.
    (Where they are not, or where convolutions overlap, a place has also seen its neighbours, which is left out.)
    """
    if before == after:
        return shares
    rows, columns = (overlap(old, new, shares) for old, new in zip(before, after, strict=True))
    return (rows.T @ shares.unflatten(-1, before) @ columns).flatten(-2)


def overlap(before: int, after: int, like: Tensor) -> Tensor:
    """Which share of each of ``before`` equal parts of a line lies in each of ``after`` equal parts of it: a matrix."""
    edges, others = (torch.arange(n + 1, dtype=torch.float64) / n for n in (before, after))
    start = torch.maximum(edges[:-1, None], others[:-1])
    end = torch.minimum(edges[1:, None], others[1:])
    return ((end - start).clamp(min=0) * before).to(like)


def grid_centres(grid: Grid, device: torch.device | None = None) -> Tensor:
    """Centres ``(h · w, 2)`` of the places of a grid, row by row, 0 … 1 from the top and from the left."""
    return torch.cartesian_prod(*((torch.arange(side, device=device) + 0.5) / side for side in grid)).view(-1, 2)


def _behind_nan(places: Tensor, count: int) -> Tensor:
    """The places as the last of so many tokens, of which the others are nowhere; a lone query is nowhere, too."""
    if count < len(places):
        return places.new_full((count, 2), torch.nan)
    return F.pad(places, (0, 0, count - len(places), 0), value=torch.nan)
