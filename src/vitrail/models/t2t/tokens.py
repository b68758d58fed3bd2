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
from vitrail.nn.attention import attend
from vitrail.nn.mlp import Mlp


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
    """A transformer block with one head that narrows its tokens, ``(B, N, D)`` to ``(B, N, width)`` (eq. 1).

    The values take the place of the input in the skip connection, whose width is another.
    """

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(inputs)
        self.qkv = nn.Linear(inputs, 3 * width, bias=False)
        self.proj = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = Mlp(width, width)
        # The authors divide q kᵀ by the root of the input's width, not of the queries'.
        self.query_scale = math.sqrt(width / inputs)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm1(x)).chunk(3, dim=-1)
        # attend() wants heads, and divides by the root of the queries' width.
        mixed = attend(*(part[:, None] for part in (q * self.query_scale, k, v)))[:, 0]
        x = v + self.proj(mixed)
        return x + self.mlp(self.norm2(x))


class TokenPerformer(nn.Module):
    """The same with the Performer's attention (Choromanski et al. 2021, FAVOR+), whose cost is linear in N.

    Attention is φ(q) Σ φ(k)ᵀ v / φ(q) Σ φ(k) with φ(x) = exp(w x - |x|² / 2) / √m, w being m random directions. They
    are drawn once and never trained, and belong to the weights: others would be another network.
    """

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

    def forward(self, x: Tensor) -> Tensor:
        k, q, v = self.kqv(self.norm1(x)).chunk(3, dim=-1)
        x = v + self.drop(self.proj(self.linear_attention(q, k, v)))
        return x + self.drop(self.mlp(self.norm2(x)))

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
        x = self.attention1(soft_split(images, SPLITS[0]))
        x = self.attention2(soft_split(restructured(x, first), SPLITS[1]))
        return self.project(soft_split(restructured(x, second), SPLITS[2])), last
