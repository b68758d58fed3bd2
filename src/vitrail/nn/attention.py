"""Scaled dot-product attention (Vaswani et al. 2017, section 3.2) and the multi-head self-attention built on it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitrail.nn.norm import LayerNorm
from vitrail.nn.rope import Rotation, rotate

# Below this many keys the backward pass of PyTorch's fused CPU kernel loses to two matrix products and a softmax.
FUSED_CPU_TRAINING_TOKENS = 512


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q kᵀ / √d) v for ``(B, heads, N, d)`` queries, keys and values, by the kernel that is faster here."""
    if q.device.type == "cpu" and q.requires_grad and k.shape[-2] < FUSED_CPU_TRAINING_TOKENS:
        return attention_probabilities(q, k) @ v
    return F.scaled_dot_product_attention(q, k, v)


def attention_probabilities(q: Tensor, k: Tensor) -> Tensor:
    """How much each query looks at each key, ``(B, heads, N, M)``; rows sum to 1."""
    return (q * q.shape[-1] ** -0.5 @ k.transpose(-2, -1)).softmax(dim=-1)


def split_heads(x: Tensor, heads: int) -> Tensor:
    """``(B, N, heads · d)`` to ``(B, heads, N, d)``."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def join_heads(x: Tensor) -> Tensor:
    """``(B, heads, N, d)`` to ``(B, N, heads · d)``."""
    return x.transpose(1, 2).flatten(2)


class Attention(nn.Module):
    """Multi-head self-attention, ``(B, N, D)`` to ``(B, N, D)``.

    Args:
        width: D, divisible by ``heads`` if there is no ``head_width``.
        heads: number of attention heads.
        qkv_bias: whether queries, keys and values have biases (not in ViT-22B).
        qk_norm: LayerNorm on each head's queries and keys, without biases (ViT-22B, Dehghani et al. 2023, section 2).
        head_width: features of a head; None for ``width / heads``.
    """

    def __init__(
        self, width: int, heads: int, *, qkv_bias: bool = True, qk_norm: bool = False, head_width: int | None = None
    ) -> None:
        super().__init__()
        head_width = head_width or width // heads
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * heads * head_width, bias=qkv_bias)
        self.q_norm = LayerNorm(head_width, bias=False) if qk_norm else nn.Identity()
        self.k_norm = LayerNorm(head_width, bias=False) if qk_norm else nn.Identity()
        self.proj = nn.Linear(heads * head_width, width)

    def forward(self, x: Tensor, rotation: Rotation | None = None) -> Tensor:
        return self.proj(join_heads(attend(*self.queries_keys_values(x, rotation))))

    def queries_keys_values(self, x: Tensor, rotation: Rotation | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values ``(B, heads, N, d)``; ``rotation`` turns the queries and keys (rotary positions)."""
        q, k, v = (split_heads(part, self.heads) for part in self.qkv(x).chunk(3, dim=-1))
        q, k = self.q_norm(q), self.k_norm(k)
        if rotation is not None:
            q, k = rotate(q, rotation), rotate(k, rotation)
        return q, k, v

    def probabilities(self, x: Tensor, rotation: Rotation | None = None) -> Tensor:
        """The attention that :meth:`forward` pays for the same input, ``(B, heads, N, N)``; for looking inside."""
        q, k, _ = self.queries_keys_values(x, rotation)
        return attention_probabilities(q, k)


def init_attention(attention: Attention) -> None:
    """Xavier-uniform queries, keys, values and output, each as a matrix of its own, and zero biases (as vit_jax)."""
    with torch.no_grad():
        for matrix in (*attention.qkv.weight.chunk(3), attention.proj.weight):
            nn.init.xavier_uniform_(matrix)
        for linear in (attention.qkv, attention.proj):
            if linear.bias is not None:
                nn.init.zeros_(linear.bias)
