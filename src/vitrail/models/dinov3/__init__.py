"""DINOv3's vision transformers (Siméoni et al. 2025), and the sizes they were published in."""

from vitrail.models.dinov3.dinov3 import SIZES, Block, Config, DINOv3
from vitrail.models.dinov3.keys import LAYOUTS

__all__ = ["LAYOUTS", "SIZES", "Block", "Config", "DINOv3"]
