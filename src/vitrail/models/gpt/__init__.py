"""GPT: the decoder-only transformer of text."""

from vitrail.models.gpt.gpt import GPT, SIZES, Block, Config
from vitrail.models.gpt.keys import LAYOUTS

__all__ = ["GPT", "LAYOUTS", "SIZES", "Block", "Config"]
