"""Rotary positions (Su et al. 2021, RoFormer): where a token is turns the features of its query and key.

Two features are a pair, and a pair is turned by an angle: a place times a frequency. The product of a query and a key
then depends on how far apart they are, not on where they are. Text has one axis. Images have two; axial: half of the
pairs turns by the row, half by the column; mixed (Heo et al. 2024, arXiv:2403.13298): every pair turns by both, with
frequencies that are learned.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from vitrail.errors import SettingError

Pairs = Literal["halves", "neighbours"]  # feature i and i + d / 2 ("rotate half"), or 2 i and 2 i + 1 ("interleaved")


@dataclass(frozen=True)
class Rotation:
    """By how much the last N tokens are turned; tokens before them have no position.

    Attributes:
        cos, sin: of the angles, ``(N, d)``, or ``(heads, N, d)`` where each head has its own; a pair has one angle.
        pairs: which features are a pair.
    """

    cos: Tensor
    sin: Tensor
    pairs: Pairs = "halves"

    def of(self, tokens: Tensor) -> Rotation:
        """Of angles ``(N, d)`` those of some of the tokens, for each of B inputs others: their numbers ``(B, n)``."""
        return Rotation(self.cos[tokens].unsqueeze(1), self.sin[tokens].unsqueeze(1), self.pairs)


def rotation(angles: Tensor, pairs: Pairs) -> Rotation:
    """The rotation by the angles ``(…, N, d / 2)`` of the pairs, in radians."""
    both = torch.cat([angles, angles], dim=-1) if pairs == "halves" else angles.repeat_interleave(2, dim=-1)
    return Rotation(both.cos(), both.sin(), pairs)


def rotate(x: Tensor, rotation: Rotation) -> Tensor:
    """Turn the last N tokens of ``x (B, heads, P + N, d)``; the P tokens before them (class, registers) stay."""
    cos, sin = rotation.cos.to(x.dtype), rotation.sin.to(x.dtype)
    prefix, patches = x.split([x.shape[-2] - cos.shape[-2], cos.shape[-2]], dim=-2)
    turned = patches * cos + quarter_turn(patches, rotation.pairs) * sin
    return torch.cat([prefix, turned], dim=-2)


def quarter_turn(x: Tensor, pairs: Pairs) -> Tensor:
    """Every pair (a, b) of features of ``x (…, d)`` turned by 90 degrees: (-b, a)."""
    if pairs == "halves":
        first, second = x.chunk(2, dim=-1)
        return torch.cat([-second, first], dim=-1)
    return torch.stack([-x[..., 1::2], x[..., ::2]], dim=-1).flatten(-2)


def axial_angles(places: Tensor, frequencies: Tensor) -> Tensor:
    """Angles ``(N, d / 2)``: places ``(N, 2)`` times frequencies ``(d / 4,)``, the first axis before the second."""
    return (places.unsqueeze(-1) * frequencies).flatten(1)


def mixed_angles(places: Tensor, frequencies: Tensor) -> Tensor:
    """Angles ``(…, N, d / 2)``: places ``(N, 2)`` times frequencies ``(2, …, d / 2)``, summed over the two axes."""
    first, second = places.unsqueeze(-1).unbind(1)
    return first * frequencies[0].unsqueeze(-2) + second * frequencies[1].unsqueeze(-2)


def geometric_frequencies(head_width: int, base: float, device: torch.device | None = None) -> Tensor:
    """Frequencies ``(d / 4,)`` that fall from 1 towards 1 / ``base``, by the same factor each.

    Raises :class:`SettingError` for a head width d that is no multiple of 4: two features a pair, two axes.
    """
    if head_width % 4:
        raise SettingError(f"rotary positions need a head width that is a multiple of 4, not {head_width}.")
    return base ** (torch.arange(head_width // 4, device=device) * -4 / head_width)


def patch_numbers(grid: tuple[int, int], device: torch.device | None = None) -> Tensor:
    """Row and column ``(N, 2)`` float32 of each patch of an ``(h, w)`` grid, row by row, counted from 0."""
    rows, columns = grid
    row, column = torch.arange(rows, device=device), torch.arange(columns, device=device)
    return torch.stack(torch.meshgrid(row, column, indexing="ij"), dim=-1).reshape(-1, 2).float()


def patch_centres(grid: tuple[int, int], device: torch.device | None = None) -> Tensor:
    """Centre ``(N, 2)`` of each patch, vertical then horizontal, as a place between -1 and 1 on each side of the image.

    So another resolution of the same picture has the same places (Siméoni et al. 2025, DINOv3).
    """
    sides = torch.tensor(grid, dtype=torch.float32, device=device)
    return (patch_numbers(grid, device) + 0.5) / sides * 2 - 1


def rotary_2d(
    grid: tuple[int, int], head_width: int, base: float = 100.0, device: torch.device | None = None
) -> Rotation:
    """DINOv3's rotation for an ``(h, w)`` grid of patches: axial by their centres, frequency 1 being a full turn."""
    frequencies = 2 * math.pi * geometric_frequencies(head_width, base, device)
    return rotation(axial_angles(patch_centres(grid, device), frequencies), "halves")


def rotary_1d(
    length: int,
    head_width: int,
    base: float = 10_000.0,
    pairs: Pairs = "halves",
    *,
    start: int = 0,
    device: torch.device | None = None,
) -> Rotation:
    """The rotation for tokens ``start`` … ``start + length - 1`` of a text.

    Pair i of d / 2, counted from 1, turns by the token's number times θᵢ = base^(-2 (i - 1) / d) (Su et al. 2021,
    section 3.2.2). Which features make up a pair differs: "neighbours" in the paper and GPT-J, "halves" in GPT-NeoX and
    Llama; reordering the rows of the query and key matrices turns one into the other.

    Raises :class:`SettingError` for an odd head width d.
    """
    if head_width % 2:
        raise SettingError(f"rotary positions turn pairs of features: the head width must be even, not {head_width}.")
    frequencies = base ** (torch.arange(head_width // 2, device=device) * -2 / head_width)
    places = torch.arange(start, start + length, device=device, dtype=torch.float32)
    return rotation(places.unsqueeze(-1) * frequencies, pairs)
