"""What a model sees of an image, as people want to look at it."""

from __future__ import annotations

from vitrail.data.geometry import Geometry, warp
from vitrail.data.preprocess import Preprocess, with_channels
from vitrail.data.sample import Image

SHARPEST = 512  # pixels; no picture needs a longer side


def as_seen(preprocess: Preprocess, image: Image) -> Image:
    """What the model sees of an image, its cut and its colours, yet as sharp as the image is, for people."""
    _, geometry = preprocess.view(image)
    scale = min(geometry.matrix[0, 0], geometry.matrix[1, 1])  # of the axis that lost most
    sharper = max(1.0, min(1 / scale, SHARPEST / max(geometry.size)))
    size = (round(geometry.size[0] * sharper), round(geometry.size[1] * sharper))
    enlarged = geometry.then(Geometry.place(geometry.size, size, (0, 0), size))
    return warp(with_channels(image, preprocess.channels), enlarged, preprocess.interpolation, preprocess.fill)
