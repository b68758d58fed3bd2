"""Swin, the transformer with shifted windows (Liu et al. 2021)."""

from vitrail.models.swin.keys import LAYOUTS
from vitrail.models.swin.swin import SIZES, Config, Swin

__all__ = ["LAYOUTS", "SIZES", "Config", "Swin"]
