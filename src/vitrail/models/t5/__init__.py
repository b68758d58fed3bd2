"""T5, which makes every task one of text to text (Raffel et al. 2020), and the sizes it was published in."""

from vitrail.models.t5.keys import LAYOUTS
from vitrail.models.t5.t5 import SIZES, T5, Config

__all__ = ["LAYOUTS", "SIZES", "T5", "Config"]
