"""Attention whose keys and values come from fewer tokens than its queries (Wang et al. 2021, PVT, section 3.3).

On a map of N places, attention takes N² products; with keys and values of a map reduced R times in height and width it
takes N² / R².
"""

from __future__ import annotations

from torch import Tensor, nn

from vitrail.errors import SettingError
from vitrail.nn.attention import attend, attention_probabilities, join_heads, split_heads
from vitrail.nn.reach import Full, Reduced


class ConvTokens(nn.Module):
    """A convolution whose places become normalised tokens: ``(B, C, H, W)`` to ``(B, h · w, D)`` and ``(h, w)``.

    With the kernel as large as the stride it is a patch embedding, with a larger one the patches overlap. Raises
    :class:`SettingError` for a map that is smaller than the kernel.

    Args:
        channels: C.
        width: D.
        kernel, stride, padding: of the convolution, in places.
        eps: of the LayerNorm.
    """

    def __init__(self, channels: int, width: int, kernel: int, stride: int, *, padding: int = 0, eps: float) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, width, kernel, stride, padding)
        self.norm = nn.LayerNorm(width, eps=eps)
        self.least = kernel - 2 * padding

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[int, int]]:
        if min(x.shape[-2:]) < self.least:
            raise SettingError(
                f"a map of {x.shape[-2]}x{x.shape[-1]} places is too small for a reduction that needs "
                f"{self.least}x{self.least}; give larger images."
            )
        y = self.conv(x)
        return self.norm(y.flatten(2).transpose(1, 2)), (y.shape[-2], y.shape[-1])


class ReducedAttention(nn.Module):
    """Multi-head attention of all tokens to the tokens of a reduced map, ``(B, N, D)`` to ``(B, N, D)``.

    Args:
        width: D; raises :class:`SettingError` if ``heads`` do not divide it.
        heads: number of attention heads.
        reduction: from a map ``(B, D, h, w)`` to fewer tokens; None to attend to all N as they are.
        qkv_bias: whether queries, keys and values have biases.
    """

    def __init__(self, width: int, heads: int, reduction: ConvTokens | None, *, qkv_bias: bool = True) -> None:
        super().__init__()
        if width % heads:
            raise SettingError(f"the width {width} is not divisible by {heads} heads.")
        self.heads = heads
        self.q = nn.Linear(width, width, bias=qkv_bias)
        self.reduction = reduction
        self.kv = nn.Linear(width, 2 * width, bias=qkv_bias)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        """Tokens, and the height and width of the map that they are the places of."""
        return self.proj(join_heads(attend(*self.queries_keys_values(x, grid))))

    def queries_keys_values(self, x: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
        """Queries ``(B, heads, N, d)``, and keys and values of the reduced map ``(B, heads, M, d)``."""
        source = x if self.reduction is None else self.reduction(as_map(x, grid))[0]
        k, v = (split_heads(part, self.heads) for part in self.kv(source).chunk(2, dim=-1))
        return split_heads(self.q(x), self.heads), k, v

    def probabilities(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        """The attention that :meth:`forward` pays for the same input, ``(B, heads, N, M)``; for looking inside."""
        q, k, _ = self.queries_keys_values(x, grid)
        return attention_probabilities(q, k)

    def attended(self, probabilities: Tensor, x: Tensor, grid: tuple[int, int]) -> Tensor:
        """What :meth:`forward` would give if it paid attention with these ``probabilities``."""
        return self.proj(join_heads(probabilities @ self.queries_keys_values(x, grid)[2]))

    def reach(self, x: Tensor, grid: tuple[int, int]) -> Full | Reduced:
        """The places of the map reach those of the reduced one."""
        if self.reduction is None:
            return Full(grid)
        return Reduced(grid, self.reduction(as_map(x, grid))[1])


def as_map(tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    """Tokens ``(B, h · w, D)``, row by row, as the map ``(B, D, h, w)``."""
    return tokens.transpose(1, 2).unflatten(2, grid)
