"""Token merging: "Token merging: your ViT but faster" (Bolya et al., ICLR 2023, arXiv:2210.09461).

Behind the attention of each block the tokens that are most alike become one, so that every block has fewer than the one
before. No weight changes and nothing is trained. A token that stands for several counts as so many in attention, and in
the end each of them is given its vector, so that the grid is whole again for whatever reads it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from vitrail.nn.attention import Attention, KeyValues
from vitrail.nn.rope import Rotation
from vitrail.nn.segments import Segments


class Merging:
    """What has become of the tokens in one pass through the blocks; a block calls `attend`, then `merge`.

    Args:
        pairs: how many pairs of tokens become one in each block, fewer where less than twice as many are left; 0 for
            none, with which every method gives what it was given.
        prefix: number of tokens at the front that stay what they are (class, distillation, registers).

    Attributes:
        into: ``(B, T)`` int64, which of the tokens there are now each of the first T is in; None for itself.
        sizes: ``(B, n)`` float32, of how many of the first tokens each of those now is made; None for 1.
    """

    def __init__(self, pairs: int = 0, prefix: int = 0) -> None:
        self.pairs = pairs
        self.prefix = prefix
        self.into: Tensor | None = None
        self.sizes: Tensor | None = None
        self._keys: Tensor | None = None

    def attend(
        self, attention: Attention, x: Tensor, rotation: Rotation | None = None, segments: Segments | None = None
    ) -> Tensor:
        """The layer's attention, where a token that is several counts as so many (eq. 1, proportional attention).

        Where nothing is merged, the tokens may be those of several images, in ``segments``.
        """
        if not self.pairs:
            return attention(x, rotation, segments=segments)
        seen = KeyValues()
        mask = None if self.sizes is None else self.sizes.log().to(_of_products(x))[:, None, None]
        y: Tensor = attention(x, self.turned(rotation), mask=mask, cache=seen)
        assert seen.keys is not None
        self._keys = seen.keys.float().mean(dim=1)
        return y

    def merge(self, x: Tensor) -> Tensor:
        """``(B, n, D)`` to ``(B, n - pairs, D)``: those become one whose keys in the last `attend` are most alike."""
        pairs = min(self.pairs, (x.shape[1] - self.prefix) // 2)
        if not pairs:
            return x
        assert self._keys is not None, "attend comes before merge"
        into = match(self._keys, pairs, self.prefix)
        sizes = torch.ones_like(into, dtype=torch.float32) if self.sizes is None else self.sizes
        after = x.shape[1] - pairs
        self.sizes = torch.zeros_like(sizes[:, :after]).scatter_add_(1, into, sizes)
        self.into = into if self.into is None else into.gather(1, self.into)
        return summed(x * (sizes / self.sizes.gather(1, into)).unsqueeze(-1), into, after).to(x.dtype)

    def restore(self, x: Tensor) -> Tensor:
        """Tokens ``(B, n, D)`` on all places that there were, ``(B, T, D)``; each has the vector of the one it is in.

        A mean over places is then one over tokens by their sizes, and attention over places proportional.
        """
        return x if self.into is None else x.flatten(0, 1)[flat(self.into, x.shape[1])].view(*self.into.shape, -1)

    def turned(self, rotation: Rotation | None) -> Rotation | None:
        """By how much each token is turned: cosine and sine are the means over the places that it is made of.

        To rotate is linear, so products with a merged key are the means of those with it at each of its places.
        """
        if rotation is None or self.into is None or self.sizes is None:
            return rotation
        places, tokens = self.into[:, self.prefix :] - self.prefix, self.sizes[:, self.prefix :]
        shares = F.one_hot(places, tokens.shape[1]).transpose(1, 2) / tokens.unsqueeze(-1)
        cos, sin = (shares.unsqueeze(1).to(angles) @ angles for angles in (rotation.cos, rotation.sin))
        return Rotation(cos, sin, rotation.pairs)


NONE = Merging()  # which keeps nothing, so that all may share it


def match(keys: Tensor, pairs: int, prefix: int) -> Tensor:
    """Which tokens become one: bipartite soft matching (section 3 and figure 1 of the paper).

    Of all tokens every other one may join one of those between: the most alike by the cosine of their keys. The pairs
    that are most alike do so; several may join the same.

    Args:
        keys: ``(B, P + N, d)``, by which tokens are compared: those of attention, the mean over its heads.
        pairs: how many join, at most N // 2.
        prefix: P, the tokens at the front that neither join nor are joined.

    Returns:
        ``(B, P + N)`` int64, below P + N - pairs: which token each one becomes. In front is the prefix, then those that
        might have joined, then those between, in their order.
    """
    patches = F.normalize(keys[:, prefix:], dim=-1)
    first = prefix % 2  # the paper counts the prefix: tokens 0, 2, 4 … join 1, 3, 5 …
    joining, joined = patches[:, first::2], patches[:, 1 - first :: 2]
    best, partner = (joining @ joined.transpose(1, 2)).max(dim=-1)
    stays = torch.ones_like(partner).scatter_(1, best.topk(pairs, dim=1).indices, 0)
    between = prefix + joining.shape[1] - pairs  # the number of the first of those
    into = torch.arange(keys.shape[1], device=keys.device).repeat(keys.shape[0], 1)
    into[:, prefix + first :: 2] = torch.where(stays.bool(), prefix - 1 + stays.cumsum(1), between + partner)
    into[:, prefix + 1 - first :: 2] = between + torch.arange(joined.shape[1], device=keys.device)
    return into


def _of_products(x: Tensor) -> torch.dtype:
    """The format of products of ``x``, which is another where autocast is on."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


def summed(x: Tensor, into: Tensor, after: int) -> Tensor:
    """Tokens ``(B, N, D)`` added up into those ``(B, after, D)`` that they become, by ``into (B, N)``."""
    B, _, D = x.shape
    sums = x.new_zeros(B * after, D)  # all rows one after the other, which is far faster than scatter_add
    return sums.index_add_(0, flat(into, after), x.flatten(0, 1)).view(B, after, D)


def flat(numbers: Tensor, count: int) -> Tensor:
    """Numbers ``(B, N)`` of tokens, of which each input has ``count``, as ``(B · N,)`` among those of all inputs."""
    return (numbers + count * torch.arange(numbers.shape[0], device=numbers.device).unsqueeze(1)).flatten()
