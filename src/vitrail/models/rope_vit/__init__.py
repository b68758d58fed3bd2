"""RoPE-ViT: the vision transformer with rotary positions on two axes (Heo et al. 2024), and its published sizes."""

from vitrail.models.rope_vit.keys import LAYOUTS
from vitrail.models.rope_vit.rope_vit import SIZES, Block, Config, RoPEViT

__all__ = ["LAYOUTS", "SIZES", "Block", "Config", "RoPEViT"]
