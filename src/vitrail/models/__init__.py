"""The models by name: one table, from a family to the class that is built and the sizes that it is published in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from typing import Any, NamedTuple

from vitrail.errors import SettingError, UnknownName
from vitrail.models import lenet, resnet, vit
from vitrail.nn.backbone import Backbone, BackboneConfig


class Family(NamedTuple):
    """A family of models: its class, and its configs by full name."""

    build: Callable[[Any], Backbone]
    sizes: Mapping[str, BackboneConfig]


FAMILIES = {
    "lenet": Family(lenet.LeNet, lenet.SIZES),
    "resnet": Family(resnet.ResNet, resnet.SIZES),
    "vit": Family(vit.ViT, vit.SIZES),
}


def names() -> list[str]:
    """Every model's name, family by family, from small to large."""
    return [name for family in FAMILIES.values() for name in family.sizes]


def family(name: str) -> str:
    """The family of a model, such as "resnet" for "resnet-18". Raises `UnknownName`."""
    for key, members in FAMILIES.items():
        if name in members.sizes:
            return key
    raise UnknownName("model", name, names())


def config(name: str) -> BackboneConfig:
    """The published config of a model. Raises `UnknownName`."""
    return FAMILIES[family(name)].sizes[name]


def create(name: str, **changes: object) -> Backbone:
    """Build a model with fresh weights, on the current default device.

    Args:
        name: one of `names`.
        changes: fields of its config to differ from what was published, such as ``image_size=64, channels=1``. One
            number as ``image_size`` means a square; a list, as JSON has them, is taken as a tuple.

    Raises:
        UnknownName: no model has this name; the nearest are offered.
        SettingError: its config has no such field, or the model cannot be built with that value.
    """
    published = config(name)
    known = [field.name for field in fields(published)]
    for field, value in changes.items():
        if field not in known:
            raise SettingError(f"the model '{name}' has no setting '{field}'; it has: {', '.join(known)}.")
        if field == "image_size" and isinstance(value, int):
            changes[field] = (value, value)
        elif isinstance(value, list):
            changes[field] = tuple(value)
    return FAMILIES[family(name)].build(replace(published, **changes))
