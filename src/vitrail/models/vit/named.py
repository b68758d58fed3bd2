"""A config in words: the published size that it is, and what differs."""

from __future__ import annotations

from vitrail.models.layout import Described, nearest_size
from vitrail.models.vit.vit import SIZES, Config


def described(config: Config) -> Described:
    """The published size of this shape and what differs from it, or the family with everything."""
    return nearest_size("vit", config, SIZES, shape)


def shape(config: Config) -> tuple[object, ...]:
    """What makes a size what it is."""
    return config.width, config.depth, config.heads, config.mlp, config.patch_size, config.stem, config.resnet_stages
