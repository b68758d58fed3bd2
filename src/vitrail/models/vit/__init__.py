from vitrail.models.vit.vit import SIZES, Block, Config, ViT

__all__ = ["SIZES", "Block", "Config", "ViT"]
