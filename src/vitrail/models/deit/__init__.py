"""Data-efficient image transformers (Touvron et al. 2021 and 2022) and the sizes they were published in."""

from vitrail.models.deit.deit import SIZES, Config, DeiT
from vitrail.models.deit.keys import LAYOUTS

__all__ = ["LAYOUTS", "SIZES", "Config", "DeiT"]
