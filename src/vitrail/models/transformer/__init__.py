"""The encoder-decoder Transformer of 2017, which translated."""

from vitrail.models.transformer.transformer import SIZES, Config, Transformer

__all__ = ["SIZES", "Config", "Transformer"]
