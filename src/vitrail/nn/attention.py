"""Scaled dot-product attention (Vaswani et al. 2017, section 3.2) and the multi-head self-attention built on it."""

from __future__ import annotations

from itertools import repeat
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitrail.nn.norm import LayerNorm
from vitrail.nn.reach import Full
from vitrail.nn.rope import Rotation, rotate
from vitrail.nn.segments import Segments, pack

# Below so many keys two matrix products and a softmax beat PyTorch's fused kernel in bfloat16 on a CPU; in training by
# far, where the bound is for the memory that they take (benchmarks/attention.py). Fixed, not measured on the spot:
# another kernel would change the last bits.
PRODUCTS, PRODUCTS_IN_TRAINING = 3072, 1024
AT_ONCE = 2**21  # products of a query and a key, as many as stay in a processor's cache


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    mask: Tensor | None = None,
    causal: bool = False,
    scale: float | None = None,
) -> Tensor:
    """softmax(q kᵀ · scale + mask) v for ``(B, heads, N, d)`` queries and ``(B, heads, M, d)`` keys and values.

    Computed by the kernel that is faster here.

    Args:
        mask: broadcasts to ``(B, heads, N, M)``: bool, True where a query may look; or float, added to the products.
        causal: the last query sees every key, each before it one key fewer.
        scale: 1 / √d where None.
    """
    if _products_are_faster(q, k, v, mask):
        return _attend_by_products(q, k, v, mask=mask, causal=causal, scale=scale)
    if causal and (mask is not None or q.shape[-2] != k.shape[-2]):  # the fused kernels take one of both, and a square
        mask, causal = _with_causality(mask, q, k), False
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal, scale=scale)


def attend_within(q: Tensor, k: Tensor, v: Tensor, segments: Segments, *, scale: float | None = None) -> Tensor:
    """`attend` for a packed row, queries, keys and values ``(1, heads, N, d)``: each token looks at its own image's.

    One product for each group of equally long images: no token is padded, and no pair of images is computed and masked.
    """
    groups = zip(*(segments.unpack(x.transpose(1, 2)) for x in (q, k, v)), strict=True)
    mixed = [attend(*(x.transpose(1, 2) for x in group), scale=scale).transpose(1, 2) for group in groups]
    return pack(mixed)[0].transpose(1, 2)


def _products_are_faster(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> bool:
    if q.device.type != "cpu" or torch.compiler.is_compiling():
        return False
    if mask is not None and mask.requires_grad:  # of which the fused kernel has no gradient
        return True
    return v.dtype == torch.bfloat16 and k.shape[-2] < (PRODUCTS_IN_TRAINING if q.requires_grad else PRODUCTS)


def _attend_by_products(
    q: Tensor, k: Tensor, v: Tensor, *, mask: Tensor | None, causal: bool, scale: float | None
) -> Tensor:
    """The same, for some images after the other, or some heads of one, where nobody needs the probabilities later."""
    images, heads, queries, keys = (*q.shape[:3], k.shape[-2])
    if q.requires_grad or images * heads * queries * keys <= AT_ONCE:
        return attention_probabilities(q, k, mask=mask, causal=causal, scale=scale) @ v
    dim, at_once = 0, AT_ONCE // (heads * queries * keys)
    if at_once == 0:
        dim, at_once = 1, max(1, AT_ONCE // (images * queries * keys))
    masks = repeat(None) if mask is None else mask.expand(images, heads, queries, keys).split(at_once, dim)
    parts = [
        attention_probabilities(some, few, mask=shown, causal=causal, scale=scale) @ values
        for some, few, values, shown in zip(*(x.split(at_once, dim) for x in (q, k, v)), masks, strict=False)
    ]
    return torch.cat(parts, dim)


def attention_probabilities(
    q: Tensor, k: Tensor, *, mask: Tensor | None = None, causal: bool = False, scale: float | None = None
) -> Tensor:
    """How much each query looks at each key, ``(B, heads, N, M)``; rows sum to 1. Arguments as of `attend`."""
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    products = q * scale @ k.transpose(-2, -1)
    if causal:
        mask = _with_causality(mask, q, k)
    if mask is not None:
        products = products + (_additive(mask, products.dtype) if mask.dtype == torch.bool else mask)
    return products.softmax(dim=-1)


def _additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """A bool mask as what is added to products: far faster than to fill them in, backwards above all."""
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(~mask, float("-inf"))


def _with_causality(mask: Tensor | None, q: Tensor, k: Tensor) -> Tensor:
    """The mask with every key shut that comes after its query; the last query and the last key are at one place."""
    queries, keys = q.shape[-2], k.shape[-2]
    before = torch.ones(queries, keys, dtype=torch.bool, device=q.device).tril(keys - queries)
    if mask is None:
        return before
    return mask & before if mask.dtype == torch.bool else mask.masked_fill(~before, float("-inf"))


def split_heads(x: Tensor, heads: int) -> Tensor:
    """``(…, N, heads · d)`` to ``(…, heads, N, d)``."""
    return x.unflatten(-1, (heads, -1)).transpose(-3, -2)


def join_heads(x: Tensor) -> Tensor:
    """``(…, heads, N, d)`` to ``(…, N, heads · d)``."""
    return x.transpose(-3, -2).flatten(-2)


class KeyValues:
    """The keys and values of all tokens so far in one layer of attention, so that no token is computed twice."""

    def __init__(self) -> None:
        self.keys: Tensor | None = None
        self.values: Tensor | None = None

    def __len__(self) -> int:
        return 0 if self.keys is None else self.keys.shape[-2]

    def extended(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Take in those of new tokens, ``(B, heads, N, d)``; returns them after all that came before."""
        if self.keys is not None and self.values is not None:
            keys, values = torch.cat([self.keys, keys], dim=-2), torch.cat([self.values, values], dim=-2)
        self.keys, self.values = keys, values
        return keys, values

    def select(self, rows: Tensor) -> None:
        """Keep these rows ``(B',)`` of the batch, in this order; as a beam search does, which goes on from the best."""
        if self.keys is not None and self.values is not None:
            self.keys, self.values = self.keys[rows], self.values[rows]


class Attention(nn.Module):
    """Multi-head self-attention, ``(B, N, D)`` to ``(B, N, D)``.

    Args:
        width: D, divisible by ``heads`` if there is no ``head_width``.
        heads: number of attention heads.
        qkv_bias: whether queries, keys and values have biases (not in ViT-22B).
        qk_norm: LayerNorm on each head's queries and keys, without biases (ViT-22B, Dehghani et al. 2023, section 2).
        head_width: features of a head; None for ``width / heads``.
        proj_bias: whether the output has a bias (not in iGPT).
        causal: whether a token sees itself and those before it only (GPT).
        scale: of the products of queries and keys, None for 1 / √d; 1 in T5.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        qkv_bias: bool = True,
        qk_norm: bool = False,
        head_width: int | None = None,
        proj_bias: bool = True,
        causal: bool = False,
        scale: float | None = None,
    ) -> None:
        super().__init__()
        head_width = head_width or width // heads
        self.heads = heads
        self.causal = causal
        self.scale = scale
        self.qkv = nn.Linear(width, 3 * heads * head_width, bias=qkv_bias)
        self.q_norm = LayerNorm(head_width, bias=False) if qk_norm else nn.Identity()
        self.k_norm = LayerNorm(head_width, bias=False) if qk_norm else nn.Identity()
        self.proj = nn.Linear(heads * head_width, width, bias=proj_bias)

    def forward(
        self,
        x: Tensor,
        rotation: Rotation | None = None,
        *,
        mask: Tensor | None = None,
        cache: KeyValues | None = None,
        segments: Segments | None = None,
    ) -> Tensor:
        """``mask`` as of `attend`; a ``cache`` holds the keys and values of the tokens before ``x``, and takes its.

        ``segments`` say that ``x (1, N, D)`` is a packed row, within whose images attention keeps.
        """
        q, k, v = self.queries_keys_values(x, rotation)
        if segments is not None:
            return self.proj(join_heads(attend_within(q, k, v, segments, scale=self.scale)))
        if cache is not None:
            k, v = cache.extended(k, v)
        return self.proj(join_heads(attend(q, k, v, mask=mask, causal=self.causal, scale=self.scale)))

    def queries_keys_values(self, x: Tensor, rotation: Rotation | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values ``(B, heads, N, d)``; ``rotation`` turns the queries and keys (rotary positions)."""
        q, k, v = (split_heads(part, self.heads) for part in self.qkv(x).chunk(3, dim=-1))
        q, k = self.q_norm(q), self.k_norm(k)
        if rotation is not None:
            q, k = rotate(q, rotation), rotate(k, rotation)
        return q, k, v

    def probabilities(
        self,
        x: Tensor,
        rotation: Rotation | None = None,
        *,
        mask: Tensor | None = None,
        cache: KeyValues | None = None,
        segments: Segments | None = None,
    ) -> Tensor:
        """The attention that :meth:`forward` pays for the same input, ``(B, heads, N, M)``; for looking inside.

        A ``cache`` is one that forward has already put the tokens ``x`` into.
        """
        mask = mask if segments is None else segments.mask(x.device)
        q, k, _ = self._looked_at(x, rotation, cache)
        return attention_probabilities(q, k, mask=mask, causal=self.causal, scale=self.scale)

    def attended(
        self,
        probabilities: Tensor,
        x: Tensor,
        rotation: Rotation | None = None,
        *,
        mask: Tensor | None = None,
        cache: KeyValues | None = None,
        segments: Segments | None = None,
    ) -> Tensor:
        """What :meth:`forward` would give if it paid attention with these ``probabilities``."""
        return self.proj(join_heads(probabilities @ self._looked_at(x, rotation, cache)[2]))

    def reach(self, *inputs: Any, **named: Any) -> Full:
        """Every token reaches every token; on which grid they lie the layer is not told."""
        return Full()

    def _looked_at(
        self, x: Tensor, rotation: Rotation | None, cache: KeyValues | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = self.queries_keys_values(x, rotation)
        if cache is not None and cache.keys is not None and cache.values is not None:
            return q, cache.keys, cache.values
        return q, k, v


def init_attention(attention: Attention) -> None:
    """Xavier-uniform queries, keys, values and output, each as a matrix of its own, and zero biases (as vit_jax)."""
    with torch.no_grad():
        for matrix in (*attention.qkv.weight.chunk(3), attention.proj.weight):
            nn.init.xavier_uniform_(matrix)
        for linear in (attention.qkv, attention.proj):
            if linear.bias is not None:
                nn.init.zeros_(linear.bias)
