"""The pointing game (Zhang et al. 2018, "Top-Down Neural Attention by Excitation Backprop", section 4.1)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def hits(maps: NDArray, boxes: NDArray) -> NDArray[np.bool_]:
    """Whether the strongest place of each heat map lies in the box of the object that it is to show: ``(n,)``.

    Args:
        maps: ``(n, H, W)``, 0 or more. Of several strongest places their middle counts; a map that is 0 all over points
            nowhere, and misses.
        boxes: ``(n, 4)`` as x0, y0, x1, y1 in pixels, right and bottom edge exclusive.
    """
    return np.array([_hits(map_, box) for map_, box in zip(maps, boxes, strict=True)], bool)


def _hits(heat: NDArray, box: NDArray) -> bool:
    if heat.max() <= 0:
        return False
    rows, columns = np.nonzero(heat == heat.max())
    x, y = columns.mean() + 0.5, rows.mean() + 0.5
    return bool(box[0] <= x < box[2] and box[1] <= y < box[3])
