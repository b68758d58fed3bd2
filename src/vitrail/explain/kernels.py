"""What a convolution does to a picture: the small kernels that are known by name, padding, stride and pooling.

As in every network, a kernel is laid over the picture as it is and not turned around before; strictly, that is a
cross-correlation. The turn would change none of the kernels here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vitrail.errors import SettingError

KERNELS: Mapping[str, Sequence[Sequence[float]]] = {
    "identity": ((0, 0, 0), (0, 1, 0), (0, 0, 0)),
    "edge-1": ((1, 0, -1), (0, 0, 0), (-1, 0, 1)),
    "edge-2": ((0, 1, 0), (1, -4, 1), (0, 1, 0)),  # the Laplacian
    "edge-3": ((-1, -1, -1), (-1, 8, -1), (-1, -1, -1)),
    "sharpen": ((0, -1, 0), (-1, 5, -1), (0, -1, 0)),
    "box-blur": ((1 / 9, 1 / 9, 1 / 9),) * 3,
}


@dataclass(frozen=True, eq=False)
class Filtered:
    """A picture, what was done to it, and what came out.

    Attributes:
        image: ``(H, W)`` or ``(H, W, C)``.
        kernel: ``(k, k)``.
        padding: rows and columns of zeros put around the image on each side.
        stride: steps of the kernel in pixels.
        pool: side of the squares of which the largest value was kept; 1 for no pooling.
        convolved: what the kernel gives, ``(h, w)`` or ``(h, w, C)`` float64.
        result: the same pooled.
    """

    image: NDArray[Any]
    kernel: NDArray[np.float64]
    padding: int
    stride: int
    pool: int
    convolved: NDArray[np.float64]
    result: NDArray[np.float64]


def apply(image: ArrayLike, kernel: ArrayLike, padding: int = 0, stride: int = 1, pool: int = 1) -> Filtered:
    """Lay a kernel over a picture, step by step, and pool what it gives.

    Args:
        image: ``(H, W)``, or ``(H, W, C)`` of which each channel is filtered for itself; numbers of any kind.
        kernel: ``(k, k)``, such as one out of `KERNELS`.
        padding, stride, pool: as of `Filtered`.

    Raises :class:`SettingError` for numbers that make no sense, and where nothing would be left.
    """
    pixels, weights = np.asarray(image), np.asarray(kernel, dtype=np.float64)
    convolved = convolve(pixels, weights, padding, stride)
    return Filtered(pixels, weights, padding, stride, pool, convolved, max_pool(convolved, pool))


def convolve(
    image: NDArray[Any], kernel: NDArray[np.float64], padding: int = 0, stride: int = 1
) -> NDArray[np.float64]:
    """Σ kernel · image under the kernel, at each step: ``(h, w)`` or ``(h, w, C)`` float64.

    h is ⌊(H + 2 padding - k) / stride⌋ + 1, and w likewise. Raises as `apply`.
    """
    if padding < 0:
        raise SettingError(f"the padding must be 0 or more, not {padding}.")
    if stride < 1:
        raise SettingError(f"the stride must be 1 or more, not {stride}.")
    if kernel.ndim != 2 or kernel.shape[0] != kernel.shape[1] or not kernel.size:
        raise SettingError(f"a kernel is a square of numbers, not {'x'.join(map(str, kernel.shape))}.")
    around = ((padding, padding), (padding, padding), *[(0, 0)] * (image.ndim - 2))
    padded = np.pad(image.astype(np.float64), around)
    side = len(kernel)
    if min(padded.shape[:2]) < side:
        height, width = padded.shape[:2]
        raise SettingError(f"a kernel of {side}x{side} is larger than the picture, {height}x{width} with its padding.")
    height, width = (length - side + 1 for length in padded.shape[:2])
    total = np.zeros((-(-height // stride), -(-width // stride), *padded.shape[2:]))
    for (row, column), weight in np.ndenumerate(kernel):  # k² sums of whole pictures, not a sum for each pixel
        total += weight * padded[row : row + height : stride, column : column + width : stride]
    return total


def max_pool(x: NDArray[np.float64], side: int) -> NDArray[np.float64]:
    """The largest value of each square of ``side`` pixels, ``(⌊h / side⌋, ⌊w / side⌋)``; what is over is left out.

    Raises as `apply`.
    """
    if side < 1:
        raise SettingError(f"squares to pool have a side of 1 or more, not {side}.")
    if min(x.shape[:2]) < side:
        raise SettingError(f"there is no square of {side}x{side} to pool in {x.shape[0]}x{x.shape[1]} values.")
    rows, columns = x.shape[0] // side, x.shape[1] // side
    squares = x[: rows * side, : columns * side].reshape(rows, side, columns, side, *x.shape[2:])
    return squares.max(axis=(1, 3))
