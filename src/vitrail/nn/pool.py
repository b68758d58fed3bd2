"""Attention pooling: one learned query looks at all tokens (the MAP head of Zhai et al. 2022)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vitrail.nn.attention import attend, attention_probabilities, join_heads, split_heads
from vitrail.nn.mlp import Activation, Mlp, init_mlp
from vitrail.nn.norm import LayerNorm
from vitrail.nn.reach import Full


class AttentionPool(nn.Module):
    """``(B, N, D)`` to ``(B, D)``: cross-attention from a learned probe, then an MLP with a residual connection."""

    def __init__(
        self, width: int, heads: int, hidden: int, *, activation: Activation = "gelu", eps: float = 1e-6
    ) -> None:
        super().__init__()
        self.heads = heads
        self.probe = nn.Parameter(torch.empty(1, 1, width))
        self.q = nn.Linear(width, width)
        self.kv = nn.Linear(width, 2 * width)
        self.proj = nn.Linear(width, width)
        self.norm = LayerNorm(width, eps=eps)
        self.mlp = Mlp(width, hidden, activation=activation)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.xavier_uniform_(self.probe)
        for matrix in (self.q.weight, *self.kv.weight.detach().chunk(2), self.proj.weight):
            nn.init.xavier_uniform_(matrix)
        for linear in (self.q, self.kv, self.proj):
            nn.init.zeros_(linear.bias)
        init_mlp(self.mlp)

    def forward(self, tokens: Tensor) -> Tensor:
        return self._pooled(attend(*self.queries_keys_values(tokens)))

    def queries_keys_values(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The probe's query ``(B, heads, 1, d)``, keys and values of the tokens ``(B, heads, N, d)``."""
        q = self.q(self.probe.expand(tokens.shape[0], -1, -1))
        k, v = self.kv(tokens).chunk(2, dim=-1)
        return split_heads(q, self.heads), split_heads(k, self.heads), split_heads(v, self.heads)

    def probabilities(self, tokens: Tensor) -> Tensor:
        """How much the probe looks at each token, ``(B, heads, 1, N)``; for looking inside."""
        q, k, _ = self.queries_keys_values(tokens)
        return attention_probabilities(q, k)

    def attended(self, probabilities: Tensor, tokens: Tensor) -> Tensor:
        """What :meth:`forward` would give if the probe paid attention with these ``probabilities``."""
        return self._pooled(probabilities @ self.queries_keys_values(tokens)[2])

    def reach(self, tokens: Tensor) -> Full:
        """The probe reaches every token, and no connection leads around it."""
        return Full(skipped=False)

    def _pooled(self, mixed: Tensor) -> Tensor:
        """The values ``(B, heads, 1, d)`` that the probe took, to ``(B, D)``."""
        x = self.proj(join_heads(mixed))
        return (x + self.mlp(self.norm(x)))[:, 0]
