"""VGG, the very deep networks of small convolutions."""

from vitrail.models.vgg.keys import LAYOUTS
from vitrail.models.vgg.vgg import SIZES, VGG, Config

__all__ = ["LAYOUTS", "SIZES", "VGG", "Config"]
