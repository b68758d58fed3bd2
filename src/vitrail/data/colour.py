"""Random changes of an image's colours, as papers make the views of an image that they compare.

SimCLR (Chen et al. 2020, appendix A), BYOL (Grill et al. 2020, table 6) and DINO (Caron et al. 2021) make each change
with a probability: jitter of four kinds in a random order, grey, Gaussian blur, solarisation.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import PIL.Image
from PIL import ImageEnhance, ImageFilter, ImageOps

from vitrail.data.geometry import from_pillow, to_pillow
from vitrail.data.sample import Image
from vitrail.errors import SettingError

JITTERS = ("brightness", "contrast", "saturation", "hue")


@dataclass(frozen=True)
class Colour:
    """What chance may do to the colours of an image; the defaults do nothing.

    Attributes:
        brightness, contrast, saturation: each is multiplied by a factor in 1 - x ... 1 + x, but not below 0.
        hue: is turned by up to this part of the colour circle, at most a half.
        jitter: probability of these four together, in a random order.
        grey: probability of losing all colour.
        blur: probability of Gaussian blur.
        radius: smallest and largest deviation of the blur, in pixels of the result.
        solarize: probability that all values from 128 upwards are inverted.

    Raises :class:`SettingError` when these make no sense.
    """

    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    jitter: float = 1.0
    grey: float = 0.0
    blur: float = 0.0
    radius: tuple[float, float] = (0.1, 2.0)
    solarize: float = 0.0

    def __post_init__(self) -> None:
        for name in ("jitter", "grey", "blur", "solarize"):
            if not 0 <= getattr(self, name) <= 1:
                raise SettingError(f"{name} must be a probability in 0 ... 1, not {getattr(self, name)}.")
        for name in ("brightness", "contrast", "saturation"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise SettingError(f"{name} must be changed by 0 or more, not {getattr(self, name)}.")
        if not 0 <= self.hue <= 0.5:
            raise SettingError(f"the hue must be turned by 0 ... 0.5 of the circle, not {self.hue}.")
        if not 0 <= self.radius[0] <= self.radius[1]:
            raise SettingError(f"the blur's radius must be two rising numbers from 0, not {self.radius}.")


def recolour(image: Image, settings: Colour, rng: np.random.Generator) -> Image:
    """A random variant ``(H, W, C)`` uint8 of an image of as many channels; what is drawn depends on nothing."""
    jitter, grey, blur, solarize = rng.random(4) < (settings.jitter, settings.grey, settings.blur, settings.solarize)
    amounts = dict(zip(JITTERS, rng.uniform(-1, 1, len(JITTERS)), strict=True))
    order = rng.permutation(len(JITTERS))
    radius = rng.uniform(*settings.radius)
    picture = to_pillow(image)
    if jitter:
        for kind in (JITTERS[i] for i in order):
            if (most := getattr(settings, kind)) > 0:
                picture = jittered(picture, kind, most * amounts[kind])
    if grey and picture.mode == "RGB":
        picture = picture.convert("L").convert("RGB")
    if blur:
        picture = picture.filter(ImageFilter.GaussianBlur(radius))
    return from_pillow(ImageOps.solarize(picture) if solarize else picture)


def jittered(picture: PIL.Image.Image, kind: str, amount: float) -> PIL.Image.Image:
    """One of :data:`JITTERS` changed by ``amount``: a factor of 1 + amount, or that part of a turn of the hue."""
    if kind == "hue":
        return turned(picture, amount)
    enhance = {
        "brightness": ImageEnhance.Brightness,
        "contrast": ImageEnhance.Contrast,
        "saturation": ImageEnhance.Color,
    }
    return enhance[kind](picture).enhance(max(0.0, 1 + amount))


def turned(picture: PIL.Image.Image, part: float) -> PIL.Image.Image:
    """All hues turned by a part of the colour circle, in steps of a 256th; a grey picture has none."""
    if picture.mode != "RGB":
        return picture
    hue, saturation, value = picture.convert("HSV").split()
    steps = round(part * 256)
    hue = hue.point([(h + steps) % 256 for h in range(256)])
    return PIL.Image.merge("HSV", (hue, saturation, value)).convert("RGB")
