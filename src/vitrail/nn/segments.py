"""A packed row: the tokens of images of several sizes one after the other, so that none is padded.

NaViT's way (Dehghani et al. 2023, Patch n' Pack, arXiv:2307.06304, section 2.1). Norms, linear maps and MLPs look at
one token at a time and see a single long row; attention keeps to the tokens of one image. Equally long images lie side
by side as a group, so that attention is one product for all of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from vitrail.nn.rope import Rotation


@dataclass(frozen=True)
class Segments:
    """Which tokens of a row belong to one image.

    Attributes:
        groups: number of images and tokens of each, for every group of equally long ones, in the order of the row.
    """

    groups: tuple[tuple[int, int], ...]

    def unpack(self, row: Tensor) -> list[Tensor]:
        """The groups ``(B_i, N_i, …)`` of a row ``(1, N, …)``, as views of it."""
        parts = row[0].split([images * tokens for images, tokens in self.groups])
        return [part.unflatten(0, group) for part, group in zip(parts, self.groups, strict=True)]

    def mask(self, device: torch.device | None = None) -> Tensor:
        """Who may look at whom, ``(N, N)`` bool: True within an image."""
        return torch.block_diag(*(torch.ones(n, n, dtype=torch.bool, device=device) for n in self._lengths()))

    def rotation(self, of_groups: Sequence[Rotation | None]) -> Rotation | None:
        """That of the row from that of an image of each group; tokens before the patches are not turned.

        None where the groups have none.
        """
        turned = [each for each in of_groups if each is not None]
        if not turned:
            return None
        cos, sin = [], []
        for (images, tokens), each in zip(self.groups, turned, strict=True):
            prefix = (0, 0, tokens - each.cos.shape[-2], 0)
            cos += [F.pad(each.cos, prefix, value=1.0)] * images
            sin += [F.pad(each.sin, prefix)] * images
        return Rotation(torch.cat(cos, dim=-2), torch.cat(sin, dim=-2), turned[0].pairs)

    def _lengths(self) -> Iterator[int]:
        for images, tokens in self.groups:
            yield from [tokens] * images


def pack(groups: Sequence[Tensor]) -> tuple[Tensor, Segments]:
    """Groups ``(B_i, N_i, …)`` as one row ``(1, N, …)`` with N = Σ B_i · N_i, and who is where in it."""
    row = torch.cat([group.flatten(0, 1) for group in groups])[None]
    return row, Segments(tuple((group.shape[0], group.shape[1]) for group in groups))
