"""The vision transformer (Dosovitskiy et al. 2021) and the sizes it was published in."""

from vitrail.models.vit.keys import LAYOUTS
from vitrail.models.vit.vit import SIZES, Block, Config, ViT

__all__ = ["LAYOUTS", "SIZES", "Block", "Config", "ViT"]
