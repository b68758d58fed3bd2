"""Deep residual networks."""

from vitrail.models.resnet.resnet import SIZES, Config, ResNet

__all__ = ["SIZES", "Config", "ResNet"]
