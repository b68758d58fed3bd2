"""One image with all that is known about it, and many of them as tensors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vitrail.errors import UnreadableImage

Image = NDArray[np.uint8]  # (H, W, C), C = 1 (grey) or 3 (RGB)

IGNORE = 255  # the class of a pixel that counts neither for nor against a semantic segmentation


@dataclass(frozen=True)
class Label:
    """The one class of an image."""

    index: int


@dataclass(frozen=True)
class Labels:
    """All classes of an image, in ascending order; none is allowed."""

    indices: tuple[int, ...]


@dataclass(frozen=True)
class Boxes:
    """Boxes ``(n, 4)`` float32 as x0, y0, x1, y1 in pixels (right and bottom edge exclusive); classes ``(n,)``."""

    xyxy: NDArray[np.float32]
    classes: NDArray[np.int64]


@dataclass(frozen=True)
class Masks:
    """One mask an instance: ``(n, H, W)`` bool, classes ``(n,)`` int64."""

    masks: NDArray[np.bool_]
    classes: NDArray[np.int64]


@dataclass(frozen=True)
class SemanticMap:
    """The class of every pixel: ``(H, W)`` uint8, 255 where none is asked for."""

    classes: NDArray[np.uint8]


@dataclass(frozen=True)
class Points:
    """K key points for each of n instances: ``(n, K, 3)`` float32 as x, y in pixels and 1 if visible else 0.

    ``mirror`` is the order of the K points in a mirrored image, where left and right have changed their names; empty
    if no point has a side.
    """

    xyv: NDArray[np.float32]
    mirror: tuple[int, ...] = ()


@dataclass(frozen=True)
class Caption:
    """One or several sentences, each of which describes the image."""

    texts: tuple[str, ...]


@dataclass(frozen=True)
class Sample:
    """An image and its targets; a target that is None is not known (or not asked for)."""

    image: Image
    name: str
    label: Label | Labels | None = None
    boxes: Boxes | None = None
    masks: Masks | None = None
    semantic: SemanticMap | None = None
    points: Points | None = None
    caption: Caption | None = None


@dataclass(frozen=True)
class Batch:
    """B samples of one size as tensors.

    Attributes:
        images: ``(B, C, H, W)`` uint8; normalised only on the device, by the task.
        names: what to call each image.
        labels: ``(B, K)`` float32: one-hot, mixed by Mixup or CutMix, or multi-hot; None without labels.
        boxes, masks, semantic, points, captions: one entry an image, empty where the data has none.
        draws: ``(B,)`` int64, a number of each sample's own, from which masks are drawn (`data.rng.uniform`).
        views: further views of the same images, each ``(B, C, h, w)`` uint8, where an objective asks for them.
        step: the number of this batch; with the seed it determines every byte of it.
        unreadable: what could not be decoded while this batch was made.
    """

    images: Tensor
    names: tuple[str, ...]
    labels: Tensor | None = None
    boxes: tuple[Boxes, ...] = ()
    masks: tuple[Masks, ...] = ()
    semantic: tuple[SemanticMap, ...] = ()
    points: tuple[Points, ...] = ()
    captions: tuple[Caption, ...] = ()
    draws: Tensor | None = None
    views: tuple[Tensor, ...] = ()
    step: int = 0
    unreadable: tuple[UnreadableImage, ...] = field(default=())

    def __len__(self) -> int:
        return len(self.names)

    def split(self, parts: int) -> Iterator[Batch]:
        """At most ``parts`` batches of about equal size that make up this one; boxes, masks … stay behind."""
        rows = -(-len(self) // parts)
        for first in range(0, len(self), rows):
            here = slice(first, first + rows)
            labels = None if self.labels is None else self.labels[here]
            draws = None if self.draws is None else self.draws[here]
            views = tuple(view[here] for view in self.views)
            yield Batch(self.images[here], self.names[here], labels, draws=draws, views=views, step=self.step)

    def to(self, device: torch.device) -> Batch:
        """The same batch with its tensors on ``device``."""

        def moved(tensor: Tensor) -> Tensor:
            return tensor.to(device, non_blocking=True)

        return replace(
            self,
            images=moved(self.images),
            labels=None if self.labels is None else moved(self.labels),
            draws=None if self.draws is None else moved(self.draws),
            views=tuple(map(moved, self.views)),
        )
