"""Attention from one row of tokens to another: what a decoder looks at an encoder's tokens with.

Vaswani et al. 2017, section 3.2.3: the queries come from the decoder, the keys and values from the encoder's output.
"""

from __future__ import annotations

from torch import Tensor, nn

from vitrail.nn.attention import KeyValues, attend, attention_probabilities, join_heads, split_heads


class CrossAttention(nn.Module):
    """Multi-head attention, ``(B, N, D)`` that look at ``(B, M, D)`` to ``(B, N, D)``.

    Args:
        width: D, divisible by ``heads`` if there is no ``head_width``.
        heads: number of attention heads.
        bias: whether the linear maps have biases (not in T5).
        head_width: features of a head; None for ``width / heads``.
        scale: of the products of queries and keys, None for 1 / √d; 1 in T5.
    """

    def __init__(
        self, width: int, heads: int, *, bias: bool = True, head_width: int | None = None, scale: float | None = None
    ) -> None:
        super().__init__()
        inner = heads * (head_width or width // heads)
        self.heads = heads
        self.scale = scale
        self.q = nn.Linear(width, inner, bias=bias)
        self.kv = nn.Linear(width, 2 * inner, bias=bias)
        self.proj = nn.Linear(inner, width, bias=bias)

    def forward(self, x: Tensor, memory: Tensor, mask: Tensor | None = None, cache: KeyValues | None = None) -> Tensor:
        """What the tokens ``x`` find in ``memory``.

        Args:
            mask: ``(B, M)`` bool, False for what of the memory only fills a row up; None where all of it counts.
            cache: keeps the keys and values of the memory, which are computed at the first call alone.
        """
        q, k, v = self.queries_keys_values(x, memory, cache)
        return self.proj(join_heads(attend(q, k, v, mask=_over_heads(mask), scale=self.scale)))

    def queries_keys_values(
        self, x: Tensor, memory: Tensor, cache: KeyValues | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries ``(B, heads, N, d)``, keys and values ``(B, heads, M, d)``."""
        q = split_heads(self.q(x), self.heads)
        if cache is not None and cache.keys is not None and cache.values is not None:
            return q, cache.keys, cache.values
        k, v = (split_heads(part, self.heads) for part in self.kv(memory).chunk(2, dim=-1))
        if cache is not None:
            cache.extended(k, v)
        return q, k, v

    def probabilities(self, x: Tensor, memory: Tensor, mask: Tensor | None = None) -> Tensor:
        """How much each token looks at each of the memory, ``(B, heads, N, M)``; for looking inside."""
        q, k, _ = self.queries_keys_values(x, memory)
        return attention_probabilities(q, k, mask=_over_heads(mask), scale=self.scale)


def _over_heads(mask: Tensor | None) -> Tensor | None:
    """``(B, M)`` to ``(B, 1, 1, M)``."""
    return None if mask is None else mask[:, None, None]
