"""Big Transfer: wide residual networks without batch norm, made to be fine-tuned."""

from vitrail.models.bit.bit import SIZES, BiT, Config
from vitrail.models.bit.keys import LAYOUTS

__all__ = ["LAYOUTS", "SIZES", "BiT", "Config"]
