"""iGPT: the transformer of text, reading pixels instead of words."""

from vitrail.models.igpt.igpt import IGPT, SIZES, Config
from vitrail.models.igpt.keys import LAYOUTS

__all__ = ["IGPT", "LAYOUTS", "SIZES", "Config"]
