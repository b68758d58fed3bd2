"""Many tiny pictures as one."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

LEAST, GAP = 32, 3  # pixels of a tile's longer side in the mosaic, and between two tiles


def mosaic(tiles: NDArray, columns: int | None = None, between: float = 1.0) -> NDArray:
    """Tiles ``(n, h, w, C)``, row by row, as one picture ``(H, W, C)`` with the value ``between`` them.

    Tiny ones are enlarged by a whole factor, so that pixels stay squares. Without ``columns`` the mosaic is about
    square.
    """
    count, h, w, channels = tiles.shape
    columns = min(columns or math.ceil(math.sqrt(count * h / w)), count)
    factor = max(1, -(-LEAST // max(h, w)))
    rows = -(-count // columns)
    shape = (rows * (h * factor + GAP) - GAP, columns * (w * factor + GAP) - GAP, channels)
    picture = np.full(shape, between, tiles.dtype)
    for number, tile in enumerate(tiles):
        row, column = divmod(number, columns)
        top, left = row * (h * factor + GAP), column * (w * factor + GAP)
        picture[top : top + h * factor, left : left + w * factor] = tile.repeat(factor, axis=0).repeat(factor, axis=1)
    return picture
