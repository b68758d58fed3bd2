"""T2T-ViT, whose patches overlap and are merged step by step (Yuan et al. 2021)."""

from vitrail.models.t2t.keys import LAYOUTS
from vitrail.models.t2t.t2t import SIZES, Config, T2TViT

__all__ = ["LAYOUTS", "SIZES", "Config", "T2TViT"]
