"""LeNet-5, the first convolutional network in daily use."""

from vitrail.models.lenet.keys import LAYOUTS
from vitrail.models.lenet.lenet import SIZES, Config, LeNet

__all__ = ["LAYOUTS", "SIZES", "Config", "LeNet"]
