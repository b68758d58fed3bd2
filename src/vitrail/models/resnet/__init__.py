"""Deep residual networks."""

from vitrail.models.resnet.keys import LAYOUTS
from vitrail.models.resnet.resnet import SIZES, Config, ResNet

__all__ = ["LAYOUTS", "SIZES", "Config", "ResNet"]
