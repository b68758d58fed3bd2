"""Modern Hopfield networks (Ramsauer et al. 2020, "Hopfield Networks is All You Need", arXiv:2008.02217).

A memory of patterns that is asked with a state, such as a damaged pattern, and answers with the pattern it resembles.
Each update of the state lowers an energy, and the update is attention: the states are the queries, the patterns both
the keys and the values. Classical Hopfield networks (Hopfield 1982) hold about 0.14 d patterns of d signs; this one
holds a number that grows exponentially with d, and mostly needs one update.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vitrail.nn.attention import attend, join_heads, split_heads


def energy(states: Tensor, patterns: Tensor, beta: float) -> Tensor:
    """E(ξ) = -lse(β, Xᵀξ) + ½ ξᵀξ + β⁻¹ log N + ½ M² (equation 2), with lse(β, z) = β⁻¹ log Σ exp(β z).

    It is never below 0, and at most 2 M² where ‖ξ‖ ≤ M, the largest norm of a pattern.

    Args:
        states: ``(…, S, d)``, the ξ.
        patterns: ``(…, N, d)``, the columns of X.
        beta: inverse temperature; the larger, the more the states single out one pattern.

    Returns:
        ``(…, S)``.
    """
    likeness = torch.logsumexp(beta * states @ patterns.mT, dim=-1) / beta
    largest = patterns.square().sum(dim=-1).amax(dim=-1, keepdim=True)
    count = torch.log(torch.tensor(float(patterns.shape[-2]), dtype=states.dtype, device=states.device))
    return -likeness + states.square().sum(dim=-1) / 2 + count / beta + largest / 2


def update(states: Tensor, patterns: Tensor, beta: float) -> Tensor:
    """ξ ← X softmax(β Xᵀξ) (equation 3): every new state is a mean of the patterns; arguments as of `energy`.

    This is ξ - ∇E(ξ), and by the concave-convex procedure the energy never rises (theorem 1).
    """
    return recall(states, patterns, beta) @ patterns


def recall(states: Tensor, patterns: Tensor, beta: float) -> Tensor:
    """softmax(β Xᵀξ): how much of each pattern an update takes, ``(…, S, N)``; rows sum to 1."""
    return (beta * states @ patterns.mT).softmax(dim=-1)


def retrieve(states: Tensor, patterns: Tensor, beta: float, steps: int = 1) -> Tensor:
    """The states ``(…, S, d)`` after some updates."""
    for _ in range(steps):
        states = update(states, patterns, beta)
    return states


def recalled(states: Tensor, patterns: Tensor, beta: float, mass: float = 0.9) -> Tensor:
    """How many patterns together make up this share of the next state, ``(…, S)`` int64.

    At a fixed point it tells which of three kinds it is (section 2): one pattern; a metastable state between some that
    resemble one another; or, where β is small, the mean of nearly all.
    """
    largest_first = recall(states, patterns, beta).sort(dim=-1, descending=True).values
    return (largest_first.cumsum(dim=-1) < mass).sum(dim=-1) + 1


class Hopfield(nn.Module):
    """States ask stored patterns, both projected: the layer "Hopfield" of section 3 (equation 10).

    With one step and β = 1/√d it is the multi-head attention of transformers, from ``(B, S, D)`` and ``(B, N, E)`` to
    ``(B, S, D)``. With more, the queries move among the keys before the values are read.

    Args:
        width: D, divisible by ``heads``.
        heads: memories side by side, each of ``D / heads`` features.
        stored_width: E; None for D.
        beta: inverse temperature; None for 1/√d of a head.
        steps: updates, the last of which reads the values.
    """

    def __init__(
        self, width: int, heads: int, *, stored_width: int | None = None, beta: float | None = None, steps: int = 1
    ) -> None:
        super().__init__()
        self.heads, self.beta, self.steps = heads, beta, steps
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(stored_width or width, width)
        self.value = nn.Linear(stored_width or width, width)
        self.proj = nn.Linear(width, width)

    def forward(self, states: Tensor, stored: Tensor, *, mask: Tensor | None = None) -> Tensor:
        """``mask`` as of `attend`: bool, True where a state may ask a pattern; or float, added to the products."""
        q, k, v = (split_heads(x, self.heads) for x in (self.query(states), self.key(stored), self.value(stored)))
        for _ in range(self.steps - 1):
            q = attend(q, k, k, mask=mask, scale=self.beta)
        return self.proj(join_heads(attend(q, k, v, mask=mask, scale=self.beta)))
