"""PVT v2, the pyramid vision transformer with overlapping patches and convolutions for positions."""

from vitrail.models.pvt_v2.keys import LAYOUTS
from vitrail.models.pvt_v2.pvt_v2 import SIZES, Config, PVTv2

__all__ = ["LAYOUTS", "SIZES", "Config", "PVTv2"]
