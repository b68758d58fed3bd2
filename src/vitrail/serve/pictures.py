"""Images and heat maps as PNG files."""

from __future__ import annotations

import io

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from vitrail.data.geometry import to_pillow
from vitrail.data.sample import Image
from vitrail.explain.draw import DARKEST, HEAT, PALEST, VEIL


def png(image: Image) -> bytes:
    """An image ``(H, W, 1 or 3)`` uint8."""
    return _encoded(to_pillow(image))


def heat_png(heat: NDArray[np.float32]) -> bytes:
    """A map ``(H, W)`` in 0 … 1 alone, to be laid over its image: in the colours of `explain`, clear where it is 0."""
    rgba = _coloured(heat)
    rgba[..., 3] = np.rint(255 * heat)
    return _encoded(PIL.Image.fromarray(rgba, "RGBA"))


def overlay_png(image: Image, heat: NDArray[np.float32]) -> bytes:
    """An image ``(H, W, 1 or 3)`` uint8 in grey under a map ``(h, w)`` in 0 … 1, which is resized to it."""
    size = (image.shape[1], image.shape[0])
    resized = np.asarray(PIL.Image.fromarray(heat, "F").resize(size, PIL.Image.Resampling.BILINEAR)).clip(0, 1)
    grey = (image.mean(axis=2, keepdims=True) / 255 - DARKEST) / (PALEST - DARKEST)
    mixed = (1 - VEIL) * 255 * grey + VEIL * _coloured(resized)[..., :3]
    return _encoded(PIL.Image.fromarray(np.rint(mixed).astype(np.uint8)))


def _coloured(heat: NDArray[np.float32]) -> NDArray[np.uint8]:
    import matplotlib as mpl

    coloured: NDArray[np.uint8] = mpl.colormaps[HEAT](heat, bytes=True)
    return coloured


def _encoded(picture: PIL.Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=4)
    return buffer.getvalue()
