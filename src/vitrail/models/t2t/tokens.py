"""The tokens-to-token module: overlapping patches, merged in steps by attention (Yuan et al. 2021, section 3.1).

Three soft splits with an attention layer after each but the last bring an image down to a sixteenth of its resolution.
After the first there are thousands of tokens, so that attention there is narrow (64 channels, one head) and, in most
of the published models, replaced by the Performer's, whose cost grows linearly with the tokens.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitrail.errors import SettingError
from vitrail.nn.attention import attend, attention_probabilities, join_heads, split_heads
from vitrail.nn.mlp import Mlp
from vitrail.nn.reach import Full


class Split(NamedTuple):
    """A soft split: overlapping square windows of a map."""

    kernel: int
    stride: int
    padding: int


SPLITS = (Split(7, 4, 2), Split(3, 2, 1), Split(3, 2, 1))  # section 3.3


def grids(image_size: tuple[int, int]) -> list[tuple[int, int]]:
    """Rows and columns of tokens after each of the three soft splits (eq. 3). Raises `SettingError` for none."""
    sizes = []
    height, width = image_size
    for split in SPLITS:
        height, width = ((n + 2 * split.padding - split.kernel) // split.stride + 1 for n in (height, width))
        sizes.append((height, width))
    if min(sizes[0]) < 1:
        raise SettingError(
            "an image of {}x{} pixels is too small for a T2T-ViT; give at least 3x3.".format(*image_size)
        )
    return sizes


def soft_split(x: Tensor, split: Split) -> Tensor:
    """A map ``(B, C, H, W)`` to its windows ``(B, N, C · k · k)``, the channel counting slowest (section 3.1)."""
    return F.unfold(x, split.kernel, padding=split.padding, stride=split.stride).transpose(1, 2)


def restructured(tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    """Tokens ``(B, h · w, D)`` as the map ``(B, D, h, w)`` that they lie on (eq. 2)."""
    return tokens.transpose(1, 2).unflatten(2, grid)


class TokenTransformer(nn.Module):
    """A transformer block with one head that narrows its tokens, ``(B, N, D)`` to a map ``(B, width, h, w)`` (eq. 1).

    The values take the place of the input in the skip connection, whose width is another.
    """

    heads = 1

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(inputs)
        self.qkv = nn.Linear(inputs, 3 * width, bias=False)
        self.proj = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = Mlp(width, width)
        # The authors divide q kᵀ by the root of the input's width, not of the queries'.
        self.query_scale = math.sqrt(width / inputs)

    def forward(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        """Tokens, and the rows and columns of the map that they are the places of."""
        q, k, v = self.queries_keys_values(x)
        return self._block(attend(q, k, v), v, grid)

    def queries_keys_values(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Each ``(B, 1, N, width)``; the queries are such that their products are to be divided by the root of that."""
        q, k, v = (split_heads(part, self.heads) for part in self.qkv(self.norm1(x)).chunk(3, dim=-1))
        return q * self.query_scale, k, v

    def probabilities(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        """The attention that :meth:`forward` pays for the same input, ``(B, 1, N, N)``; for looking inside."""
        q, k, _ = self.queries_keys_values(x)
        return attention_probabilities(q, k)

    def attended(self, probabilities: Tensor, x: Tensor, grid: tuple[int, int]) -> Tensor:
        """What :meth:`forward` would give if it paid attention with these ``probabilities``."""
        v = self.queries_keys_values(x)[2]
        return self._block(probabilities @ v, v, grid)

    def reach(self, x: Tensor, grid: tuple[int, int]) -> Full:
        """Every place reaches every place."""
        return Full(grid)

    def _block(self, mixed: Tensor, v: Tensor, grid: tuple[int, int]) -> Tensor:
        """The rest of the block behind what attention took of the values."""
        x = join_heads(v) + self.proj(join_heads(mixed))
        return restructured(x + self.mlp(self.norm2(x)), grid)


class TokenPerformer(nn.Module):
    """The same with the Performer's attention (Choromanski et al. 2021, FAVOR+), whose cost is linear in N.

    Attention is φ(q) Σ φ(k)ᵀ v / φ(q) Σ φ(k) with φ(x) = exp(w x - |x|² / 2) / √m, w being m random directions. They
    are drawn once and never trained, and belong to the weights: others would be another network.
    """

    heads = 1
    eps = 1e-8  # added to the divisor
    dropout = 0.1  # of both branches, whatever the rest of the network has

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(inputs)
        self.kqv = nn.Linear(inputs, 3 * width)  # keys first, as in the authors' files
        self.proj = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = Mlp(width, width)
        self.drop = nn.Dropout(self.dropout)
        count = width // 2
        self.directions: Tensor
        self.register_buffer("directions", nn.init.orthogonal_(torch.empty(count, width)) * math.sqrt(count))

    def forward(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        """Tokens, and the rows and columns of the map that they are the places of."""
        k, q, v = self.kqv(self.norm1(x)).chunk(3, dim=-1)
        return self._block(self.linear_attention(q, k, v), v, grid)

    def linear_attention(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """The values ``(B, N, width)``, each as queries and keys of that shape weigh it."""
        q_features, k_features = self.features(q), self.features(k)
        values = v.to(k_features)
        mixed = q_features @ (k_features.transpose(1, 2) @ values)
        total = q_features @ k_features.sum(dim=1).unsqueeze(2)
        return (mixed / (total + self.eps)).to(v)

    def features(self, x: Tensor) -> Tensor:
        """φ of ``(B, N, width)``, positive ``(B, N, m)``; at least float32, since in float16 `eps` would be zero."""
        x = x.to(torch.promote_types(x.dtype, torch.float32))
        half_square = x.square().sum(dim=-1, keepdim=True) / 2
        return (x @ self.directions.to(x).T - half_square).exp() / math.sqrt(len(self.directions))

    def probabilities(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        """What each token takes of each one's values, ``(B, 1, N, N)``: the matrix that `forward` does without.

        It is no softmax, yet not negative, and its rows sum to 1.
        """
        k, q, _ = self.kqv(self.norm1(x)).chunk(3, dim=-1)
        products = self.features(q) @ self.features(k).transpose(1, 2)
        return (products / (products.sum(dim=-1, keepdim=True) + self.eps)).unsqueeze(1)

    def attended(self, probabilities: Tensor, x: Tensor, grid: tuple[int, int]) -> Tensor:
        """What :meth:`forward` would give if it paid attention with these ``probabilities``."""
        v = self.kqv(self.norm1(x)).chunk(3, dim=-1)[2]
        return self._block((probabilities.squeeze(1) @ v.to(probabilities)).to(v), v, grid)

    def reach(self, x: Tensor, grid: tuple[int, int]) -> Full:
        """Every place reaches every place."""
        return Full(grid)

    def _block(self, mixed: Tensor, v: Tensor, grid: tuple[int, int]) -> Tensor:
        """The rest of the block behind what attention took of the values."""
        x = v + self.drop(self.proj(mixed))
        return restructured(x + self.drop(self.mlp(self.norm2(x))), grid)


ATTENTIONS: dict[str, type[TokenPerformer | TokenTransformer]] = {
    "performer": TokenPerformer,
    "transformer": TokenTransformer,
}


class TokensToToken(nn.Module):
    """Images ``(B, C, H, W)`` to tokens ``(B, h · w, width)``, with their grid ``(h, w)``: a sixteenth of H and W.

    Args:
        attention: one of `ATTENTIONS`.
        channels: C.
        token_width: channels of the tokens within the module.
        width: channels of the tokens that leave it.

    Raises :class:`SettingError` for an attention that there is not.
    """

    def __init__(self, attention: str, channels: int, token_width: int, width: int) -> None:
        super().__init__()
        if attention not in ATTENTIONS:
            raise SettingError(f"a T2T-ViT has no token attention '{attention}'; known are: {', '.join(ATTENTIONS)}.")
        windows = [split.kernel**2 for split in SPLITS]
        self.attention1 = ATTENTIONS[attention](channels * windows[0], token_width)
        self.attention2 = ATTENTIONS[attention](token_width * windows[1], token_width)
        self.project = nn.Linear(token_width * windows[2], width)

    def forward(self, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
        first, second, last = grids((images.shape[-2], images.shape[-1]))
        x = self.attention1(soft_split(images, SPLITS[0]), first)
        x = self.attention2(soft_split(x, SPLITS[1]), second)
        return self.project(soft_split(x, SPLITS[2])), last
