"""Images that keep their proportions, and batches of such images, which are of several sizes.

NaViT (Dehghani et al. 2023, Patch n' Pack, arXiv:2307.06304): nothing is squashed, cut off or padded. Each image
becomes a grid of whole patches with its own proportions, as nearly as whole patches allow, and about as many pixels as
the model is used to.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset

from vitrail.data.geometry import Geometry, Size
from vitrail.data.loader import channels_first, prepared, stack
from vitrail.data.preprocess import Preprocess
from vitrail.data.sample import Sample
from vitrail.data.source import Source
from vitrail.errors import UnreadableImage


@dataclass(frozen=True)
class Proportions:
    """How an image becomes whole patches without losing its proportions.

    An image gets as many patches as `preprocess.size` has, or at most ``tokens``. Where these are more, an image gets
    more only if it has the pixels: it is enlarged to the model's own number, not beyond.

    Attributes:
        preprocess: the model's own; its size, channels and interpolation are used, and no part is cut off.
        patch_size: side of a patch in pixels.
        tokens: most patches of an image; None for as many as `preprocess.size` has.
    """

    preprocess: Preprocess
    patch_size: int
    tokens: int | None = None

    @property
    def own(self) -> int:
        """Patches of an image of the model's own size."""
        return math.prod(side // self.patch_size for side in self.preprocess.size)

    def pixels(self, images: int) -> int:
        """Pixels of so many images of the model's own size."""
        return images * self.own * self.patch_size**2

    def apply(self, sample: Sample) -> tuple[Sample, Geometry]:
        """The sample with its image on a grid of whole patches and its targets moved, as `Preprocess.apply`."""
        rows, columns = self.grid((sample.image.shape[0], sample.image.shape[1]))
        size = (rows * self.patch_size, columns * self.patch_size)
        return replace(self.preprocess, size=size, resize="squash", crop_fraction=1.0).apply(sample)

    def grid(self, source: Size) -> Size:
        """Rows and columns of patches of an image of a size in pixels."""
        of_its_pixels = math.prod(source) // self.patch_size**2
        return nearest_grid(source, min(self.tokens or self.own, max(self.own, of_its_pixels)))


def nearest_grid(proportions: Size, tokens: int) -> Size:
    """Rows and columns of a grid of at most so many patches that has about these proportions (height, width).

    Of the grids that come from rounding the exact sides up or down, and from taking off what is then too many, the one
    with the nearest proportions. Both sides are at least 1, so that an image thinner than a patch is widened to one.
    """
    height, width = proportions
    rows, columns = math.sqrt(tokens * height / width), math.sqrt(tokens * width / height)
    rounded = [(r, c) for r in _around(rows, tokens) for c in _around(columns, tokens)]
    grids = [(r, min(c, tokens // r)) for r, c in rounded] + [(min(r, tokens // c), c) for r, c in rounded]
    return min(grids, key=lambda grid: (abs(math.log(grid[1] * height / (grid[0] * width))), -math.prod(grid)))


def _around(side: float, most: int) -> tuple[int, int]:
    """A side in patches, rounded down and up, within 1 … ``most``."""
    return min(max(math.floor(side), 1), most), min(max(math.ceil(side), 1), most)


@dataclass(frozen=True)
class PackedBatch:
    """Images of several sizes, in rows that are computed one after the other.

    Attributes:
        rows: of each row its groups of images of one size, ``(B_i, C, H_i, W_i)`` uint8.
        labels: ``(B, K)`` float32 of all images in the order of the rows; None without labels.
        unreadable: what could not be decoded while this batch was made.
    """

    rows: tuple[tuple[Tensor, ...], ...]
    labels: Tensor | None = None
    unreadable: tuple[UnreadableImage, ...] = ()

    def __len__(self) -> int:
        return sum(len(group) for row in self.rows for group in row)

    def to(self, device: torch.device) -> PackedBatch:
        """The same batch with its tensors on ``device``."""
        rows = tuple(tuple(group.to(device, non_blocking=True) for group in row) for row in self.rows)
        return replace(self, rows=rows, labels=None if self.labels is None else self.labels.to(device))


@dataclass(frozen=True)
class PackedBatches(TorchDataset[tuple[PackedBatch, list[int]]]):
    """Every image of a source once, at its own proportions; unreadable ones are left out.

    ``batches[n]`` are images number n · ``batch_size`` and the following ones, sorted by size, together with their
    numbers in the source. A row has at most the patches of ``batch_size`` images of the model's own size, or one image
    that has more. With several processes each sees every ``world``-th image.
    """

    source: Source
    classes: int
    proportions: Proportions
    batch_size: int
    rank: int = 0
    world: int = 1

    def __len__(self) -> int:
        return -(-len(range(self.rank, len(self.source), self.world)) // self.batch_size)

    def __getitem__(self, step: int) -> tuple[PackedBatch, list[int]]:
        mine = range(self.rank, len(self.source), self.world)[step * self.batch_size : (step + 1) * self.batch_size]
        samples, numbers, unreadable = prepared(self._sample, mine)
        order = sorted(range(len(samples)), key=lambda place: _size(samples[place]))
        rows = in_rows([samples[place] for place in order], self.proportions.pixels(self.batch_size))
        stacked = [[stack(group, self.classes) for group in _groups(row)] for row in rows]
        labels = [labels for row in stacked for _, labels in row if labels is not None]
        batch = PackedBatch(
            rows=tuple(tuple(channels_first(images) for images, _ in row) for row in stacked),
            labels=torch.from_numpy(np.concatenate(labels)) if labels else None,
            unreadable=tuple(unreadable),
        )
        return batch, [numbers[place] for place in order]

    def _sample(self, index: int) -> Sample:
        return self.proportions.apply(self.source.sample(index))[0]


def in_rows(samples: Sequence[Sample], pixels: int) -> list[list[Sample]]:
    """The samples, in their order, parted into rows of at most so many pixels; an image of more has one to itself."""
    rows: list[list[Sample]] = []
    room = 0
    for sample in samples:
        wanted = math.prod(_size(sample))
        if wanted > room or not rows:
            rows.append([])
            room = pixels
        rows[-1].append(sample)
        room -= wanted
    return rows


def _groups(samples: Sequence[Sample]) -> Iterator[list[Sample]]:
    """Neighbours of one size."""
    for _, group in groupby(samples, key=_size):
        yield list(group)


def _size(sample: Sample) -> Size:
    return sample.image.shape[0], sample.image.shape[1]
