"""A sample whose image is decoded when it is looked at, and only as far."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace

import numpy as np
from PIL.Image import Transpose

from vitrail.choices import MAX_PIXELS
from vitrail.data import jpeg, read
from vitrail.data.geometry import Size, from_pillow, to_pillow
from vitrail.data.sample import Image, Sample

NOTHING: Image = np.zeros((0, 0, 1), np.uint8)


class Picture(ABC):
    """An image that is there, or can be had.

    Attributes:
        sample: the image's name and its targets; its own image may be empty.
        size: height and width of the whole image.
        channels: 1 (grey) or 3 (RGB).
    """

    sample: Sample
    size: Size
    channels: int

    @abstractmethod
    def whole(self) -> Sample:
        """The sample with its whole image. Raises :class:`vitrail.errors.UnreadableImage`."""

    @abstractmethod
    def reduced(self, reduction: int, rows: int | None = None) -> Image:
        """The image at 1/``reduction`` of its size, rounded up, of which at least the first ``rows`` rows.

        ``reduction`` is one of `jpeg.REDUCTIONS`. ``(H, W, 1 or 3)`` uint8, perhaps read-only. Raises
        :class:`vitrail.errors.UnreadableImage`.
        """


class Decoded(Picture):
    """An image whose pixels are there; reduced, each pixel is the mean of a square of them."""

    def __init__(self, sample: Sample) -> None:
        self.sample = sample
        self.size = sample.image.shape[0], sample.image.shape[1]
        self.channels = sample.image.shape[2]

    def whole(self) -> Sample:
        return self.sample

    def reduced(self, reduction: int, rows: int | None = None) -> Image:
        image = self.sample.image
        return image if reduction == 1 else from_pillow(to_pillow(image).reduce(reduction))


class StoredJpeg(Picture):
    """A JPEG; ``turn`` puts it upright."""

    def __init__(self, stored: bytes, header: jpeg.Header, sample: Sample, turn: Transpose | None = None) -> None:
        self.stored, self.header, self.sample, self.turn = stored, header, sample, turn
        height, width = header.height, header.width
        self.size = (width, height) if turn in read.ON_ITS_SIDE else (height, width)
        self.channels = header.channels

    def whole(self) -> Sample:
        return replace(self.sample, image=read.decode(self.stored, self.sample.name))

    def reduced(self, reduction: int, rows: int | None = None) -> Image:
        try:
            image = jpeg.decode(self.stored, self.header, reduction, rows if self.turn is None else None)
        except Exception:  # damaged: Pillow says how, or can read it after all
            return Decoded(self.whole()).reduced(reduction)
        return image if self.turn is None else from_pillow(to_pillow(image).transpose(self.turn))


class Remembered(Picture):
    """Another picture, of which what was decoded is kept, for several to look at."""

    def __init__(self, picture: Picture) -> None:
        self.picture, self.sample, self.size, self.channels = picture, picture.sample, picture.size, picture.channels
        self.images: dict[int, Image] = {}

    def whole(self) -> Sample:
        if 0 not in self.images:
            self.images[0] = self.picture.whole().image
        return replace(self.sample, image=self.images[0])

    def reduced(self, reduction: int, rows: int | None = None) -> Image:
        if reduction not in self.images:
            self.images[reduction] = self.picture.reduced(reduction)
        return self.images[reduction]


def of_bytes(stored: bytes, sample: Sample) -> Picture:
    """The picture of an image as it is stored. Raises :class:`vitrail.errors.UnreadableImage` unless it may be read."""
    header = jpeg.header(stored)
    if header is None or header.height * header.width > MAX_PIXELS:
        return Decoded(replace(sample, image=read.decode(stored, sample.name)))
    return StoredJpeg(stored, header, sample, read.turn_of(stored) if header.metadata else None)
