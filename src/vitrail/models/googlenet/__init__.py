"""GoogLeNet, the first of the Inception networks."""

from vitrail.models.googlenet.googlenet import SIZES, Config, GoogLeNet
from vitrail.models.googlenet.keys import LAYOUTS

__all__ = ["LAYOUTS", "SIZES", "Config", "GoogLeNet"]
