"""The views of an image that SimCLR and DINO compare: how far a crop may go, and what may happen to the colours."""

from __future__ import annotations

from dataclasses import replace

from vitrail.data.augment import TINY, Augment
from vitrail.data.colour import Colour


def simclr_view(smallest: float, strength: float, side: int) -> Augment:
    """SimCLR's view (Chen et al. 2020, appendix A) of at least the share ``smallest`` of an image.

    ``strength`` is that of the changes of colour: 1 for ImageNet and 0.5 for CIFAR in the paper.
    """
    most = 0.8 * strength
    colour = Colour(most, most, most, min(0.5, 0.2 * strength), jitter=0.8, grey=0.2)
    return _view((smallest, 1.0), blurred(colour, 0.5, side))


def dino_views(split: float, side: int) -> tuple[Augment, Augment, Augment]:
    """DINO's two kinds of global view and its local one (Caron et al. 2021, section 3.2 and appendix).

    Global views show at least the share ``split`` of an image, local ones at most that, and at least a twentieth. The
    changes of colour are BYOL's.
    """
    colour = Colour(0.4, 0.4, 0.2, 0.1, jitter=0.8, grey=0.2)
    first = _view((split, 1.0), blurred(colour, 1.0, side))
    second = _view((split, 1.0), blurred(replace(colour, solarize=0.2), 0.1, side))
    local = _view((min(0.05, split), split), blurred(colour, 0.5, side))
    return first, second, local


def blurred(colour: Colour, chance: float, side: int) -> Colour:
    """The same with blur for images of ``side`` pixels.

    The papers' 0.1 to 2 pixels are meant for 224 and become less in proportion; tiny images are not blurred at all, as
    SimCLR does with CIFAR's.
    """
    if side < TINY:
        return colour
    return replace(colour, blur=chance, radius=(0.1 * side / 224, 2.0 * side / 224))


def _view(scale: tuple[float, float], colour: Colour) -> Augment:
    return Augment(crop_scale=scale, crop_tiny=True, flip=0.5, colour=colour)
