"""JPEG decoded no further than it is looked at: at 1/2, 1/4 or 1/8 of its size, and not below the last row wanted.

A JPEG is one long string of bits, which must be read from its start; so what lies above, left and right of a crop costs
its share, but what lies below need not be read at all: the decoder is told that the image ends there. At a reduced
size the inverse cosine transform itself gives fewer pixels (ITU-T T.81; libjpeg's ``scale_denom``).

simplejpeg and Pillow both rest on libjpeg-turbo and give the same pixels; simplejpeg gives them with less ado.
"""

from __future__ import annotations

import io
from importlib.util import find_spec
from typing import NamedTuple

import numpy as np
import PIL.Image

from vitrail.data.read import without_warnings
from vitrail.data.sample import Image

REDUCTIONS = (8, 4, 2, 1)  # what libjpeg-turbo has fast transforms for
FRAMES = (0xC0, 0xC1, 0xC2)  # SOF0 ... SOF2: baseline, extended, progressive; all in Huffman's code
START_OF_SCAN, END_OF_IMAGE = 0xDA, b"\xff\xd9"
APPLICATION_1 = 0xE1  # EXIF and XMP
TRAILER = 4096  # bytes that may come after the end of the image
TALLEST_BLOCK = 32  # rows that one row of blocks covers at most


class Header(NamedTuple):
    """What the beginning of a JPEG says.

    Attributes:
        height, width: in pixels, as stored.
        channels: 1 or 3.
        at: the byte where the height is stored.
        metadata: whether there is EXIF or XMP, which may ask for the image to be turned.
    """

    height: int
    width: int
    channels: int
    at: int
    metadata: bool


def header(stored: bytes) -> Header | None:
    """The header of a JPEG that is whole and of a usual kind; None for any other, and for what is no JPEG."""
    if not stored.startswith(b"\xff\xd8") or stored.rfind(END_OF_IMAGE, -TRAILER) < 0:
        return None
    place, metadata = 2, False
    while place + 10 <= len(stored) and stored[place] == 0xFF and stored[place + 1] != START_OF_SCAN:
        marker, length = stored[place + 1], int.from_bytes(stored[place + 2 : place + 4], "big")
        metadata = metadata or marker == APPLICATION_1
        if marker in FRAMES:
            bits, channels = stored[place + 4], stored[place + 9]
            height, width = (int.from_bytes(stored[place + i : place + i + 2], "big") for i in (5, 7))
            usual = bits == 8 and channels in (1, 3) and height and width
            return Header(height, width, channels, place + 5, metadata) if usual else None
        place += 2 + length
    return None


def decode(stored: bytes, header: Header, reduction: int = 1, rows: int | None = None) -> Image:
    """The image at 1/``reduction`` of its size (rounded up), of which at least the first ``rows`` rows.

    Every pixel is what decoding all of the image gives. Damage to the compressed bits goes unnoticed, as it does with
    Pillow. Returns ``(H, W, 1 or 3)`` uint8, perhaps read-only; raises whatever the decoder does for what it cannot
    decode.
    """
    height, width = header.height, header.width
    if rows is not None:
        height = min(height, ((rows + 1) * reduction // TALLEST_BLOCK + 1) * TALLEST_BLOCK)  # the last row blends
        stored = stored[: header.at] + height.to_bytes(2, "big") + stored[header.at + 2 :]
    size = -(-height // reduction), -(-width // reduction)
    read = _with_simplejpeg if find_simplejpeg() else _with_pillow
    pixels = read(stored, size, header.channels, reduction)
    if pixels.shape != (*size, header.channels):
        raise ValueError(f"decoded to {pixels.shape}, not to {(*size, header.channels)}")
    return pixels


def decoder() -> str:
    """The library that decodes, for people."""
    return "simplejpeg" if find_simplejpeg() else "Pillow"


def find_simplejpeg() -> bool:
    """Whether simplejpeg is installed: ``pip install 'vitrail[fast]'``."""
    global _found
    if _found is None:
        _found = find_spec("simplejpeg") is not None
    return _found


_found: bool | None = None


def _with_simplejpeg(stored: bytes, size: tuple[int, int], channels: int, reduction: int) -> Image:
    import simplejpeg

    least = {"min_height": size[0], "min_width": size[1]} if reduction > 1 else {}
    pixels: Image = simplejpeg.decode_jpeg(stored, "GRAY" if channels == 1 else "RGB", strict=False, **least)
    return pixels


def _with_pillow(stored: bytes, size: tuple[int, int], channels: int, reduction: int) -> Image:
    with without_warnings(), PIL.Image.open(io.BytesIO(stored), formats=("JPEG",)) as image:
        if reduction > 1:
            image.draft(None, (image.width // reduction, image.height // reduction))
        pixels = np.asarray(image)
    return pixels if pixels.ndim == 3 else pixels[:, :, None]
