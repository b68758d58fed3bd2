"""A palette for images: the K colours that stand for all of their pixels with the least squared error (k-means).

Lloyd's algorithm (1982) from the start of k-means++ (Arthur and Vassilvitskii 2007). Equal pixels are one point with a
weight, so that grey images, and drawings of few colours, cost next to nothing.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vitrail.data.preprocess import Preprocess
from vitrail.data.rng import generator
from vitrail.data.source import Source
from vitrail.errors import DataError, UnreadableImage

IMAGES = 1024  # that are looked at
PIXELS = 65_536  # of all these images together
ROUNDS = 100  # of Lloyd's algorithm, at most
ENOUGH = 1e-3  # it stops when a round takes off less than this share of the error
AT_ONCE = 16_384  # points whose distances to all colours are in memory together


def fit_palette(source: Source, preprocess: Preprocess, colours: int, seed: int = 0) -> NDArray[np.float32]:
    """``(K, C)`` colours of a sample of the source's images as the model sees them, in 0 … 1, from dark to bright.

    K is ``colours``, or the number of different colours there are if that is smaller. Raises :class:`DataError` if no
    image of the sample can be read, or all of them have one colour only.
    """
    rng = generator(seed, "palette")
    points, counts = np.unique(pixels_of(source, preprocess, rng), axis=0, return_counts=True)
    if len(points) < 2:
        raise DataError(f"the images have one colour only, {tuple(map(int, points[0]))}; there is nothing to learn.")
    palette = points / 255
    if len(points) > colours:
        palette = k_means(palette, counts.astype(np.float64), colours, rng)
    return palette[np.argsort(palette.sum(axis=1), kind="stable")].astype(np.float32)


def pixels_of(source: Source, preprocess: Preprocess, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Pixels ``(M, C)`` uint8, as many of each image, of at most `IMAGES` images at random."""
    chosen = np.sort(rng.permutation(len(source))[:IMAGES])
    each = -(-PIXELS // len(chosen))
    found = []
    for index in chosen:
        try:
            pixels = preprocess.view(source.sample(int(index)).image)[0].reshape(-1, preprocess.channels)
        except UnreadableImage:
            continue  # it will be named when it is its turn
        found.append(pixels if len(pixels) <= each else pixels[rng.choice(len(pixels), each, replace=False)])
    if not found:
        raise DataError("no image could be read to choose a palette from; mend or replace them.")
    return np.concatenate(found)


def k_means(
    points: NDArray[np.float64], weights: NDArray[np.float64], k: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """The k means ``(k, C)`` of different points ``(M, C)``, M > k, each of which counts ``weights (M,)`` times."""
    return lloyd(points, weights, spread(points, weights, k, rng))


def spread(
    points: NDArray[np.float64], weights: NDArray[np.float64], k: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """k of the points: each drawn with a chance in proportion to its squared distance from those drawn before."""
    first = rng.choice(len(points), p=weights / weights.sum())
    chosen, distance = [first], ((points - points[first]) ** 2).sum(axis=1)
    while len(chosen) < k:
        chances = weights * distance
        chosen.append(rng.choice(len(points), p=chances / chances.sum()))
        distance = np.minimum(distance, ((points - points[chosen[-1]]) ** 2).sum(axis=1))
    return points[chosen]


def lloyd(
    points: NDArray[np.float64], weights: NDArray[np.float64], means: NDArray[np.float64], enough: float = ENOUGH
) -> NDArray[np.float64]:
    """Each point to its nearest mean, each mean to the middle of its points, until that is of no more use.

    A mean without points goes to the point that is farthest from its own.
    """
    before = np.inf
    for _ in range(ROUNDS):
        nearest, distance = assign(points, means)
        error = float(weights @ distance)
        if error >= before * (1 - enough):
            break
        total = np.bincount(nearest, weights, len(means))
        sums = [np.bincount(nearest, weights * column, len(means)) for column in points.T]
        means = np.stack(sums, axis=1) / np.maximum(total, 1e-12)[:, None]
        empty = np.flatnonzero(total == 0)
        means[empty] = points[np.argsort(-distance, kind="stable")[: len(empty)]]
        before = error
    return means


def assign(points: NDArray[np.float64], means: NDArray[np.float64]) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """The nearest mean of each point ``(M,)``, and the squared distance to it ``(M,)``."""
    nearest, distance = [], []
    for first in range(0, len(points), AT_ONCE):
        part = points[first : first + AT_ONCE]
        distances = (part**2).sum(axis=1)[:, None] - 2 * part @ means.T + (means**2).sum(axis=1)
        nearest.append(distances.argmin(axis=1))
        distance.append(np.maximum(distances.min(axis=1), 0))
    return np.concatenate(nearest), np.concatenate(distance)
