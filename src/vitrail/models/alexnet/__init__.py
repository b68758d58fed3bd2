"""AlexNet, the network that began the deep years of computer vision."""

from vitrail.models.alexnet.alexnet import SIZES, AlexNet, Config
from vitrail.models.alexnet.keys import LAYOUTS

__all__ = ["LAYOUTS", "SIZES", "AlexNet", "Config"]
