"""GPT: the decoder-only transformer of text."""

from vitrail.models.gpt.gpt import GPT, SIZES, Config

__all__ = ["GPT", "SIZES", "Config"]
