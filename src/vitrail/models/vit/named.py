"""A config in words: the published size that it is, and what differs."""

from __future__ import annotations

from dataclasses import fields

from vitrail.models.layout import Described
from vitrail.models.vit.vit import SIZES, Config


def described(config: Config) -> Described:
    """The published size of this shape and what differs from it, or the family with everything."""
    base = next((size for size in SIZES if shape(SIZES[size]) == shape(config)), None)
    stated = {field.name: getattr(config, field.name) for field in fields(Config)}
    if base is None:
        return Described("vit", stated)
    return Described(base, {key: value for key, value in stated.items() if value != getattr(SIZES[base], key)})


def shape(config: Config) -> tuple[object, ...]:
    """What makes a size what it is."""
    return config.width, config.depth, config.heads, config.mlp, config.patch_size, config.stem, config.resnet_stages
