"""PVT, the pyramid vision transformer."""

from vitrail.models.pvt.keys import LAYOUTS
from vitrail.models.pvt.pvt import PVT, SIZES, Config

__all__ = ["LAYOUTS", "PVT", "SIZES", "Config"]
