"""One stored image, as bytes or as a file, to pixels: (H, W, 1) if it is grey, (H, W, 3) otherwise."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import PIL.Image
from numpy.typing import NDArray
from PIL.Image import Transpose

from vitrail.choices import MAX_PIXELS
from vitrail.data.sample import Image
from vitrail.errors import TooManyPixels, UnreadableImage

IMAGE_ENDINGS = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif")
PILLOW_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")  # no other of its parsers sees untrusted bytes

ORIENTATION = 0x0112  # the EXIF tag, and how to undo each of its values (EXIF 2.32, section 4.6.4)
UPRIGHT = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}
ON_ITS_SIDE = (Transpose.TRANSPOSE, Transpose.ROTATE_270, Transpose.TRANSVERSE, Transpose.ROTATE_90)


def is_image(file_name: str) -> bool:
    """Whether the file's ending is that of an image that can be read."""
    return file_name.lower().endswith(IMAGE_ENDINGS)


def decode(data: bytes | Path, name: str, max_pixels: int = MAX_PIXELS) -> Image:
    """Decode an image: JPEG, PNG, WebP, BMP, TIFF, or the first frame of a GIF.

    EXIF orientation is obeyed; transparent pixels are laid on white; palettes, CMYK and other colours become RGB.
    16-bit grey becomes 8-bit by ``round(value / 257)``; 16-bit colour keeps the high byte (Pillow decodes it so);
    32-bit and floating-point grey is scaled so that its own smallest value becomes 0 and its largest 255.

    Args:
        data: the stored bytes, or the file that holds them.
        name: what to call the image in an error.
        max_pixels: the largest width times height that is decoded, checked on the header. Pillow's own limit
            (`MAX_PIXELS`) holds in any case.

    Returns:
        ``(H, W, 1)`` uint8 if the stored image is grey, else ``(H, W, 3)``; read-only.

    Raises:
        UnreadableImage: it is damaged, cut short, of another format, or not there.
        TooManyPixels: it is larger than ``max_pixels``.
    """
    try:
        stored = data.read_bytes() if isinstance(data, Path) else data
        with without_warnings():
            return _decode(stored, max_pixels)
    except (PIL.Image.DecompressionBombError, _TooLarge) as error:
        raise TooManyPixels(name, _reason(error)) from error
    except Exception as error:  # for damaged bytes Pillow's parsers raise nearly anything
        raise UnreadableImage(name, _reason(error)) from error


class _TooLarge(ValueError):
    """More pixels than are allowed."""


def read_bytes(path: Path) -> bytes:
    """The bytes of an image file. Raises :class:`UnreadableImage` if it is not there or cannot be read."""
    try:
        return path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
        raise UnreadableImage(str(path), _reason(error)) from error


def turn_of(stored: bytes) -> Transpose | None:
    """How to put an image upright by its metadata; None where it stands so, or nobody knows."""
    try:
        with without_warnings(), PIL.Image.open(io.BytesIO(stored), formats=PILLOW_FORMATS) as image:
            return UPRIGHT.get(_orientation(image))
    except Exception:  # damaged; whoever decodes it says so
        return None


@contextmanager
def without_warnings() -> Iterator[None]:
    """Pillow warns of odd metadata (ImageNet has some): the pixels are sound, and damaged ones raise.

    Threads share the filters, which is harmless where only Pillow's are touched.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        yield


def _decode(stored: bytes, max_pixels: int) -> Image:
    if not stored:
        raise ValueError("the file is empty")
    with PIL.Image.open(io.BytesIO(stored), formats=PILLOW_FORMATS) as image:
        if not 0 < image.width * image.height <= max_pixels:
            raise _TooLarge(f"{image.width} x {image.height} pixels; at least 1 and at most {max_pixels} can be read")
        image.load()
        pixels = _eight_bits(image)
        turn = UPRIGHT.get(_orientation(image))
        array = np.asarray(pixels if turn is None else pixels.transpose(turn))
    return array if array.ndim == 3 else array[:, :, None]


def _orientation(image: PIL.Image.Image) -> int:
    """The EXIF orientation, 1 (upright) where there is none that can be read."""
    try:
        orientation = image.getexif().get(ORIENTATION, 1)
    except Exception:  # damaged metadata beside sound pixels
        return 1
    return orientation if isinstance(orientation, int) else 1


def _eight_bits(image: PIL.Image.Image) -> PIL.Image.Image:
    """The same picture in mode L or RGB."""
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):  # Pillow < 10.3: 16-bit PNG is I
        return PIL.Image.fromarray(_from_16_bits(np.asarray(image)))
    if image.mode in ("I", "F"):
        return PIL.Image.fromarray(_from_range(np.asarray(image)))
    grey = image.mode in ("1", "L", "LA", "La")
    if image.has_transparency_data:
        return _on_white(image, "L" if grey else "RGB")
    return image.convert("L" if grey else "RGB") if image.mode not in ("L", "RGB") else image


def _from_16_bits(values: NDArray) -> Image:
    return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)  # 257 * 255 = 65535


def _from_range(values: NDArray) -> Image:
    """Smallest finite value to 0, largest to 255; a constant image to 0, NaN to 0."""
    values = values.astype(np.float64)
    finite = values[np.isfinite(values)]
    if finite.size == 0 or finite.min() == finite.max():
        return np.zeros(values.shape, np.uint8)
    low, high = finite.min(), finite.max()
    scaled = (np.clip(np.nan_to_num(values, nan=low), low, high) - low) / (high - low)
    return np.rint(scaled * 255).astype(np.uint8)


def _on_white(image: PIL.Image.Image, mode: str) -> PIL.Image.Image:
    """Lay a picture with an alpha channel, or with a transparent colour, on a white sheet."""
    with_alpha = image.convert(f"{mode}A")
    sheet = PIL.Image.new(mode, image.size, "white")
    sheet.paste(with_alpha.convert(mode), mask=with_alpha.getchannel("A"))
    return sheet


def _reason(error: Exception) -> str:
    """A short reason for people, the same in every run: no memory addresses, no paths."""
    if isinstance(error, PIL.UnidentifiedImageError):
        return f"damaged, or none of {', '.join(PILLOW_FORMATS)}"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    text = re.sub(r"<[^>]*>|0x[0-9a-f]+", "", str(error)).partition("\n")[0].strip(" :")
    return text[:120] or type(error).__name__
