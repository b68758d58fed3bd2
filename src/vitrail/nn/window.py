"""Attention in windows (Liu et al. 2021, Swin Transformer, section 3.2): maps cut into windows, shifted, put together.

Maps are ``(B, H, W, C)`` here, channels last, and windows ``(B, n, N, C)``: n windows of N places, row by row.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from vitrail.nn.position import Resampling, resample_grid

# What is done where windows do not fit a map, in which libraries differ.
# "paper", as the authors, and Transformers where these refuse: the map is padded to whole windows and then shifted; a
#     window is at most as high and wide as the shorter side, and if it is that, nothing is shifted.
# "timm": the map is shifted and then padded; height and width each limit the window, and are shifted, for themselves.
# "torchvision": the map is padded and then shifted; windows keep their size, a side of one window is not shifted.
Borders = Literal["paper", "timm", "torchvision"]

MASKED = -100.0  # what is added to the logits of two places that only the shift has brought together


class Windows(NamedTuple):
    """How a map is cut.

    Attributes:
        size: height and width of a window.
        shift: rows and columns by which the map moves up and to the left before; what leaves it comes back behind.
        pad_first: whether the zeros that make it whole windows, at the bottom and on the right, come before the shift.
    """

    size: tuple[int, int]
    shift: tuple[int, int] = (0, 0)
    pad_first: bool = True


def fit(size: tuple[int, int], window: tuple[int, int], borders: Borders) -> Windows:
    """The shifted windows for a map of ``size``: ``window`` where it fits, moved by half of it if there are several."""
    if borders == "paper":
        size = (min(size), min(size))
    elif borders == "torchvision":
        size = (-(-size[0] // window[0]) * window[0], -(-size[1] // window[1]) * window[1])
    h, w = min(size[0], window[0]), min(size[1], window[1])
    shift = (h // 2 if size[0] > h else 0, w // 2 if size[1] > w else 0)
    return Windows((h, w), shift, pad_first=borders != "timm")


def partition(x: Tensor, windows: Windows) -> Tensor:
    """A map ``(B, H, W, C)`` to its windows ``(B, n, N, C)``."""
    x = _shift(_pad(x, windows), windows) if windows.pad_first else _pad(_shift(x, windows), windows)
    (batch, height, width, channels), (h, w) = x.shape, windows.size
    rows, columns = height // h, width // w
    x = x.reshape(batch, rows, h, columns, w, channels).transpose(2, 3)
    return x.reshape(batch, rows * columns, h * w, channels)


def merge(x: Tensor, windows: Windows, size: tuple[int, int]) -> Tensor:
    """Windows ``(B, n, N, C)`` back to the map ``(B, H, W, C)`` of ``size`` that `partition` cut."""
    (batch, _, _, channels), (height, width), (h, w) = x.shape, size, windows.size
    rows, columns = -(-height // h), -(-width // w)
    x = x.reshape(batch, rows, columns, h, w, channels).transpose(2, 3)
    x = x.reshape(batch, rows * h, columns * w, channels)
    back = windows._replace(shift=(-windows.shift[0], -windows.shift[1]))
    if windows.pad_first:
        return _shift(x, back)[:, :height, :width]
    return _shift(x[:, :height, :width], back)


def shift_mask(size: tuple[int, int], windows: Windows, device: torch.device | None = None) -> Tensor:
    """What is added to the logits in each window of a shifted map of ``size``: ``(n, N, N)`` float32, 0 or -100.

    The last windows of a shifted map hold places from opposite borders, which must not see each other (figure 4).
    """
    (h, w), (down, right) = windows.size, windows.shift
    rows = _regions(-(-size[0] // h) * h, h, down, device)
    columns = _regions(-(-size[1] // w) * w, w, right, device)
    regions = partition((3 * rows[:, None] + columns)[None, :, :, None], Windows(windows.size))[0, :, :, 0]
    return (regions[:, :, None] != regions[:, None, :]) * MASKED


def relative_positions(window: tuple[int, int], table: tuple[int, int], device: torch.device | None = None) -> Tensor:
    """Which row of a table speaks for each pair of places in a window: ``(N, N)`` int64, queries first.

    A table for windows of h x w, here ``table``, has a row for each of the (2h - 1)(2w - 1) offsets from key to query;
    it serves smaller windows, too.
    """
    rows, columns = (torch.arange(n, device=device) for n in window)
    down = rows[:, None] - rows[None, :] + table[0] - 1
    right = columns[:, None] - columns[None, :] + table[1] - 1
    index = down[:, None, :, None] * (2 * table[1] - 1) + right[None, :, None, :]
    return index.flatten(2).flatten(0, 1)


def resample_table(
    table: Tensor, before: tuple[int, int], after: tuple[int, int], resampling: Resampling = "bicubic"
) -> Tensor:
    """A table ``((2h - 1)(2w - 1), heads)`` of windows ``before`` for windows ``after``; computed in float32."""
    if before == after:
        return table
    grid = table.float().T.unflatten(1, (2 * before[0] - 1, 2 * before[1] - 1))
    resampled = resample_grid(grid[None], (2 * after[0] - 1, 2 * after[1] - 1), resampling)
    return resampled[0].flatten(1).T.to(table).contiguous()


def _pad(x: Tensor, windows: Windows) -> Tensor:
    bottom, right = -x.shape[1] % windows.size[0], -x.shape[2] % windows.size[1]
    return F.pad(x, (0, 0, 0, right, 0, bottom)) if bottom or right else x


def _shift(x: Tensor, windows: Windows) -> Tensor:
    up, left = windows.shift
    return x.roll((-up, -left), dims=(1, 2)) if up or left else x


def _regions(length: int, window: int, shift: int, device: torch.device | None) -> Tensor:
    """Number of the region of each place: 2 for what the shift brought back, 1 for the rest of its window, 0 before."""
    places = torch.arange(length, device=device)
    return (places >= length - window).long() + (places >= length - shift).long()
