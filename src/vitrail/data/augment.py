"""Random changes that leave an image what it is: crop, flip, colour jitter, RandAugment, random erasing.

Everything works on uint8, mostly in Pillow, and every change of place is a :class:`Geometry`, so that boxes, masks and
points move along.

Two rules keep tiny images (shorter side under ``TINY`` pixels, such as digits) what they are. A crop or a wide shift
would cut off what there is to see, so they are shifted by up to an eighth instead, as He et al. (2016, section 4.2) do
with CIFAR's 32 pixels; ``crop_tiny`` crops them like all others. And tiny grey ones, mostly characters, are never
mirrored.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import PIL.Image
import torch
from PIL import ImageEnhance, ImageOps

from vitrail.data.colour import Colour, recolour
from vitrail.data.geometry import (
    Geometry,
    Interpolation,
    Size,
    from_pillow,
    mirrored,
    move,
    resized,
    to_pillow,
    warp,
)
from vitrail.data.jpeg import REDUCTIONS
from vitrail.data.picture import Decoded, Picture
from vitrail.data.preprocess import Preprocess, with_channels
from vitrail.data.sample import Image, Sample
from vitrail.errors import SettingError

TINY = 64
LUMA = (0.299, 0.587, 0.114)  # how bright red, green and blue are (ITU-R BT.601)
SHIFT = 1 / 8  # of the frame's side, for tiny images


@dataclass(frozen=True)
class Augment:
    """What chance may do to an image; the defaults do nothing.

    Attributes:
        crop_scale: smallest and largest share of the image's area that a crop keeps; None for the plain preprocessing.
        crop_ratio: smallest and largest width over height of a crop, relative to that of the result.
        crop_tiny: whether tiny images are cropped, too, and not shifted instead.
        flip: probability of mirroring left and right.
        jitter: brightness, contrast and saturation are each multiplied by a factor in 1 - jitter ... 1 + jitter.
        colour: changes of the colours besides, each with its probability; None for none.
        randaugment: how many operations of RandAugment (Cubuk et al. 2020) are drawn; 0 for none.
        magnitude, magnitude_std: mean and deviation of their strength, of 10.
        erase: probability that a rectangle becomes noise (Zhong et al. 2020).

    Raises :class:`SettingError` when these make no sense.
    """

    crop_scale: tuple[float, float] | None = None
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    crop_tiny: bool = False
    flip: float = 0.0
    jitter: float = 0.0
    colour: Colour | None = None
    randaugment: int = 0
    magnitude: float = 9.0
    magnitude_std: float = 0.5
    erase: float = 0.0

    def __post_init__(self) -> None:
        if self.crop_scale is not None and not 0 < self.crop_scale[0] <= self.crop_scale[1] <= 1:
            raise SettingError(
                f"the crop scale must be two rising shares of the area in 0 ... 1, not {self.crop_scale}."
            )
        if not 0 < self.crop_ratio[0] <= self.crop_ratio[1]:
            raise SettingError(f"the crop ratio must be two rising numbers above 0, not {self.crop_ratio}.")
        for name in ("flip", "jitter", "erase"):
            if not 0 <= getattr(self, name) <= 1:
                raise SettingError(f"{name} must be in 0 ... 1, not {getattr(self, name)}.")
        if self.randaugment < 0 or not 0 <= self.magnitude <= 10 or self.magnitude_std < 0:
            raise SettingError(
                "RandAugment needs a number of operations, a magnitude in 0 ... 10 and a deviation >= 0."
            )


PRESETS: dict[str, Augment] = {
    "none": Augment(),
    "light": Augment(crop_scale=(0.35, 1.0), flip=0.5, jitter=0.2),
    # as DeiT (Touvron et al. 2021, table 9)
    "strong": Augment(crop_scale=(0.08, 1.0), flip=0.5, jitter=0.3, randaugment=2, erase=0.25),
}

# RandAugment's operations. The magnitude is in -1 ... 1; its sign means something only where there are two directions.
# The strengths are those of timm's "increasing" set, which DeiT uses; but one bit at least survives posterising.
# On a grey image "saturation" does nothing.
COLOUR: dict[str, Callable[[PIL.Image.Image, float], PIL.Image.Image]] = {
    "autocontrast": lambda image, m: ImageOps.autocontrast(image),
    "equalize": lambda image, m: ImageOps.equalize(image),
    "invert": lambda image, m: ImageOps.invert(image),
    "posterize": lambda image, m: ImageOps.posterize(image, max(1, 4 - int(4 * abs(m)))),
    "solarize": lambda image, m: ImageOps.solarize(image, 256 - int(256 * abs(m))),
    "solarize_add": lambda image, m: _add_to_dark(image, int(110 * abs(m))),
    "saturation": lambda image, m: ImageEnhance.Color(image).enhance(1 + 0.9 * m),
    "contrast": lambda image, m: ImageEnhance.Contrast(image).enhance(1 + 0.9 * m),
    "brightness": lambda image, m: ImageEnhance.Brightness(image).enhance(1 + 0.9 * m),
    "sharpness": lambda image, m: ImageEnhance.Sharpness(image).enhance(1 + 0.9 * m),
}
GEOMETRIC: dict[str, Callable[[Size, float], Geometry]] = {
    "rotate": lambda size, m: Geometry.rotate(size, 30 * m),
    "shear_x": lambda size, m: Geometry.shear(size, 0.3 * m, 0),
    "shear_y": lambda size, m: Geometry.shear(size, 0, 0.3 * m),
    "translate_x": lambda size, m: Geometry.translate(size, 0.45 * m * size[1], 0),
    "translate_y": lambda size, m: Geometry.translate(size, 0, 0.45 * m * size[0]),
}
OPERATIONS = (*COLOUR, *GEOMETRIC)
TINY_OPERATIONS = tuple(name for name in OPERATIONS if name not in ("translate_x", "translate_y"))


def augment(sample: Sample, settings: Augment, preprocess: Preprocess, rng: np.random.Generator) -> Sample:
    """A random variant of the sample: image uint8 at ``preprocess``'s size and channels, targets moved along.

    What is drawn from ``rng``, and in which order, depends on the settings and the image's shape only. With
    ``PRESETS["none"]`` the result is that of ``preprocess.apply``, whatever is drawn.
    """
    return augment_picture(Decoded(sample), settings, preprocess, rng)


def augment_picture(picture: Picture, settings: Augment, preprocess: Preprocess, rng: np.random.Generator) -> Sample:
    """The same of a picture, of which no more is decoded than the result needs.

    Raises :class:`vitrail.errors.UnreadableImage`.
    """
    tiny = min(picture.size) < TINY
    sample = _crop_and_flip(picture, tiny, settings, preprocess, rng)
    sample = replace(sample, image=_jitter(sample.image, settings.jitter, rng))
    if settings.colour is not None:
        sample = replace(sample, image=recolour(sample.image, settings.colour, rng))
    for operation, magnitude in _draw_operations(TINY_OPERATIONS if tiny else OPERATIONS, settings, rng):
        if operation in COLOUR:
            sample = replace(sample, image=from_pillow(COLOUR[operation](to_pillow(sample.image), magnitude)))
        else:
            sample = _warp(sample, GEOMETRIC[operation](preprocess.size, magnitude), preprocess.interpolation)
    if rng.random() < settings.erase:
        sample = replace(sample, image=_erase(sample.image, rng))
    return sample


def _crop_and_flip(
    picture: Picture, tiny: bool, settings: Augment, preprocess: Preprocess, rng: np.random.Generator
) -> Sample:
    scale = None if tiny and not settings.crop_tiny else settings.crop_scale
    if scale is None:
        sample, _ = preprocess.apply(picture.whole())
    else:
        sample = _crop(picture, scale, settings.crop_ratio, preprocess, rng)
    if scale is None and settings.crop_scale is not None:
        sample = _warp(sample, _draw_shift(preprocess.size, rng), preprocess.interpolation)
    if rng.random() < settings.flip and not (tiny and picture.channels == 1):
        sample = move(sample, mirrored(sample.image), Geometry.flip(preprocess.size))
    return sample


def _crop(
    picture: Picture,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    preprocess: Preprocess,
    rng: np.random.Generator,
) -> Sample:
    """A random crop, to whole pixels of the picture as far as it is reduced."""
    box = _draw_crop(picture.size, preprocess.size, scale, ratio, rng)
    reduction = reduction_for(picture.size, preprocess.size, scale[0], ratio)
    x0, x1 = _whole_pixels(box[0] / reduction, box[2] / reduction, -(-picture.size[1] // reduction))
    y0, y1 = _whole_pixels(box[1] / reduction, box[3] / reduction, -(-picture.size[0] // reduction))
    image = picture.reduced(reduction, rows=y1)[y0:y1, x0:x1]
    image = with_channels(resized(image, preprocess.size, preprocess.interpolation), preprocess.channels)
    whole = (x0 * reduction, y0 * reduction, x1 * reduction, y1 * reduction)
    return move(picture.sample, image, Geometry.crop_resize(picture.size, whole, preprocess.size))


def reduction_for(source: Size, size: Size, smallest: float, ratio: tuple[float, float]) -> int:
    """How far an image may be reduced before it is cropped: its smallest crop still has as many pixels as the result.

    It depends on no chance, so that a reduced image can be kept for all of its crops. ``smallest`` is the smallest
    share of the area that a crop keeps.
    """
    crops = [_fitted(source, size, smallest, proportion) for proportion in ratio]
    spare = min(min(width / size[1], height / size[0]) for width, height in crops)
    return next((reduction for reduction in REDUCTIONS if reduction <= spare), 1)


def _whole_pixels(start: float, stop: float, side: int) -> tuple[int, int]:
    """The nearest whole pixels, at least one, inside the side."""
    first = min(round(start), side - 1)
    return first, min(side, max(first + 1, round(stop)))


def _warp(sample: Sample, step: Geometry, interpolation: Interpolation) -> Sample:
    """Warp the image and move its targets, step by step, for what has left the image once does not come back.

    What comes into view takes the mean colour of the image's border, to be least seen.
    """
    image = sample.image
    border = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
    colour = tuple(int(value) for value in border.mean(axis=0).round())
    return move(sample, warp(image, step, interpolation, colour), step)


def _draw_crop(
    source: Size,
    size: Size,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    rng: np.random.Generator,
) -> tuple[float, float, float, float]:
    """A box of random area and proportions inside the source (Szegedy et al. 2015, section 6).

    The proportions always hold; where the area asked for does not fit with them, the largest that does is taken.
    """
    H, W = source
    share, proportion = rng.uniform(*scale), math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
    width, height = _fitted(source, size, share, proportion)
    x0, y0 = rng.random() * (W - width), rng.random() * (H - height)
    return x0, y0, x0 + width, y0 + height


def _fitted(source: Size, size: Size, share: float, ratio: float) -> tuple[float, float]:
    """Width and height of a crop of this share of the area, or as much of it as fits into the source.

    ``ratio`` is its width over its height, relative to that of the result.
    """
    H, W = source
    area, proportion = share * H * W, ratio * size[1] / size[0]
    width, height = math.sqrt(area * proportion), math.sqrt(area / proportion)
    fit = min(1.0, W / width, H / height)
    return width * fit, height * fit


def _draw_shift(size: Size, rng: np.random.Generator) -> Geometry:
    """By whole pixels, so that nothing blurs."""
    y, x = (int(rng.integers(-int(side * SHIFT), int(side * SHIFT), endpoint=True)) for side in size)
    return Geometry.translate(size, x, y)


def _jitter(image: Image, amount: float, rng: np.random.Generator) -> Image:
    brightness, contrast, saturation = rng.uniform(1 - amount, 1 + amount, 3)
    return image if amount == 0 else jittered(image, brightness, contrast, saturation)


def jittered(image: Image, brightness: float, contrast: float, saturation: float) -> Image:
    """Pixels times ``brightness``, then away from the mean grey by ``contrast``, then from their own by ``saturation``.

    All three are one linear map of a pixel and its grey, so that nothing is rounded or cut off in between.
    """
    pixels = torch.from_numpy(image).float()
    grey = (pixels.reshape(-1, 3) @ torch.tensor(LUMA)).reshape(*image.shape[:2], 1) if image.shape[2] == 3 else pixels
    mean, both = float(grey.mean()) * brightness, brightness * contrast
    shift = grey * (both * (1 - saturation)) + mean * (1 - contrast)
    return pixels.mul_(both * saturation).add_(shift).clamp_(0, 255).round_().to(torch.uint8).numpy()


def _draw_operations(
    operations: tuple[str, ...], settings: Augment, rng: np.random.Generator
) -> list[tuple[str, float]]:
    """Operations and their signed magnitude in -1 ... 1; as in timm, one that is drawn takes place every other time."""
    drawn = []
    for _ in range(settings.randaugment):
        operation = operations[rng.integers(len(operations))]
        magnitude = np.clip(rng.normal(settings.magnitude, settings.magnitude_std), 0, 10) / 10
        sign, takes_place = rng.random(2) < 0.5
        if takes_place:
            drawn.append((operation, float(-magnitude if sign else magnitude)))
    return drawn


def _add_to_dark(image: PIL.Image.Image, amount: int) -> PIL.Image.Image:
    """Brighten the pixels of the darker half."""
    table = [min(255, value + amount) if value < 128 else value for value in range(256)]
    return image.point(table * len(image.getbands()))


def _erase(image: Image, rng: np.random.Generator) -> Image:
    """Fill a random rectangle with noise (Zhong et al. 2020, algorithm 1; 2 % to a third of the area, as in timm)."""
    H, W, C = image.shape
    area = rng.uniform(0.02, 1 / 3) * H * W
    proportion = math.exp(rng.uniform(math.log(0.3), math.log(1 / 0.3)))
    height = min(H, max(1, round(math.sqrt(area / proportion))))
    width = min(W, max(1, round(math.sqrt(area * proportion))))
    top, left = rng.integers(H - height, endpoint=True), rng.integers(W - width, endpoint=True)
    erased = image.copy()
    erased[top : top + height, left : left + width] = rng.integers(0, 256, (height, width, C), dtype=np.uint8)
    return erased
