"""The models by name: from a family to the class that is built and the sizes that it is published in.

One table for images, one for text.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from typing import Any, NamedTuple

from vitrail.errors import SettingError, UnknownName
from vitrail.models import (
    alexnet,
    bert,
    bit,
    deit,
    dinov3,
    googlenet,
    gpt,
    igpt,
    lenet,
    pvt,
    pvt_v2,
    resnet,
    rope_vit,
    swin,
    t2t,
    t5,
    transformer,
    vgg,
    vit,
)
from vitrail.models.layout import Layout
from vitrail.nn.backbone import Backbone, BackboneConfig, TextBackbone, TextConfig


class Family(NamedTuple):
    """A family of models: its class with the config that it reads, its sizes by full name, other libraries' layouts."""

    build: Callable[[Any], Backbone]
    config: type[Any]
    sizes: Mapping[str, BackboneConfig]
    layouts: Mapping[str, Layout]


FAMILIES = {
    "alexnet": Family(alexnet.AlexNet, alexnet.Config, alexnet.SIZES, alexnet.LAYOUTS),
    "bit": Family(bit.BiT, bit.Config, bit.SIZES, bit.LAYOUTS),
    "deit": Family(deit.DeiT, deit.Config, deit.SIZES, deit.LAYOUTS),
    "dinov3": Family(dinov3.DINOv3, dinov3.Config, dinov3.SIZES, dinov3.LAYOUTS),
    "googlenet": Family(googlenet.GoogLeNet, googlenet.Config, googlenet.SIZES, googlenet.LAYOUTS),
    "igpt": Family(igpt.IGPT, igpt.Config, igpt.SIZES, igpt.LAYOUTS),
    "lenet": Family(lenet.LeNet, lenet.Config, lenet.SIZES, lenet.LAYOUTS),
    "pvt": Family(pvt.PVT, pvt.Config, pvt.SIZES, pvt.LAYOUTS),
    "pvt-v2": Family(pvt_v2.PVTv2, pvt_v2.Config, pvt_v2.SIZES, pvt_v2.LAYOUTS),
    "resnet": Family(resnet.ResNet, resnet.Config, resnet.SIZES, resnet.LAYOUTS),
    "rope-vit": Family(rope_vit.RoPEViT, rope_vit.Config, rope_vit.SIZES, rope_vit.LAYOUTS),
    "swin": Family(swin.Swin, swin.Config, swin.SIZES, swin.LAYOUTS),
    "t2t": Family(t2t.T2TViT, t2t.Config, t2t.SIZES, t2t.LAYOUTS),
    "vgg": Family(vgg.VGG, vgg.Config, vgg.SIZES, vgg.LAYOUTS),
    "vit": Family(vit.ViT, vit.Config, vit.SIZES, vit.LAYOUTS),
}


class TextFamily(NamedTuple):
    """A family of models of text; what a `Family` is for images."""

    build: Callable[[Any], TextBackbone]
    config: type[Any]
    sizes: Mapping[str, TextConfig]
    layouts: Mapping[str, Layout]


TEXT_FAMILIES = {
    "bert": TextFamily(bert.BERT, bert.Config, bert.SIZES, bert.LAYOUTS),
    "gpt": TextFamily(gpt.GPT, gpt.Config, gpt.SIZES, gpt.LAYOUTS),
    "t5": TextFamily(t5.T5, t5.Config, t5.SIZES, t5.LAYOUTS),
    "transformer": TextFamily(transformer.Transformer, transformer.Config, transformer.SIZES, {}),
}


def names() -> list[str]:
    """The name of every model of images, family by family, from small to large."""
    return [name for family in FAMILIES.values() for name in family.sizes]


def text_names() -> list[str]:
    """The name of every model of text, family by family, from small to large."""
    return [name for family in TEXT_FAMILIES.values() for name in family.sizes]


def members(name: str) -> Family | TextFamily:
    """The entry of a model's or a family's name in the tables. Raises `UnknownName`."""
    key = family(name)
    return FAMILIES[key] if key in FAMILIES else TEXT_FAMILIES[key]


def _everything() -> dict[str, Family | TextFamily]:
    return {**FAMILIES, **TEXT_FAMILIES}


def family(name: str) -> str:
    """The family of a model, such as "resnet" for "resnet-18" and for itself. Raises `UnknownName`."""
    for key, entry in _everything().items():
        if name in entry.sizes or name == key:
            return key
    raise UnknownName("model", name, names() + text_names())


def family_of_images(name: str) -> str:
    """The family of a model of images. Raises `UnknownName`, and :class:`SettingError` for a model of text."""
    if (key := family(name)) not in FAMILIES:
        raise SettingError(f"{name} is a model of text, not of images; those are: {', '.join(FAMILIES)}.")
    return key


def config(name: str) -> Any:
    """The published config of a model. Raises `UnknownName`."""
    for entry in _everything().values():
        if name in entry.sizes:
            return entry.sizes[name]
    raise UnknownName("model", name, names() + text_names())


def create(name: str, **changes: object) -> Backbone:
    """Build a model with fresh weights, on the current default device.

    Args:
        name: one of `names`; or a family, for a model of no published size, with all that its config needs.
        changes: fields of its config to differ from what was published, such as ``image_size=64, channels=1``. One
            number as ``image_size`` means a square; a list, as JSON has them, is taken as a tuple.

    Raises:
        UnknownName: no model has this name; the nearest are offered.
        SettingError: its config has no such field, or the model cannot be built with that value.
    """
    return FAMILIES[family_of_images(name)].build(changed(name, **changes))


def create_text(name: str, **changes: object) -> TextBackbone:
    """Build a model of text; arguments and errors as of `create`, but that a context has no two sides."""
    key = family(name)
    if key not in TEXT_FAMILIES:
        raise SettingError(f"{name} is a model of images, not of text; those are: {', '.join(TEXT_FAMILIES)}.")
    return TEXT_FAMILIES[key].build(changed(name, **changes))


def changed(name: str, **changes: Any) -> Any:
    """The config of a model with changes to it; arguments and errors as of `create`."""
    entry = members(name)
    if name in entry.sizes:
        return altered(name, entry.sizes[name], **changes)
    try:
        return entry.config(**_checked(name, changes))
    except TypeError as error:
        raise SettingError(
            f"'{name}' is a family; name one of its sizes, {', '.join(entry.sizes)}, "
            f"or give all of: {', '.join(_settings(name))}."
        ) from error


def altered(name: str, config: Any, **changes: Any) -> Any:
    """The ``config`` of a model with changes to it; arguments and errors as of `create`."""
    return replace(config, **_checked(name, changes))


def _checked(name: str, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Changes as a config holds them. Raises :class:`SettingError` for one of what the model does not have."""
    known = _settings(name)
    if unknown := [field for field in changes if field not in known]:
        raise SettingError(f"the model '{name}' has no setting '{unknown[0]}'; it has: {', '.join(known)}.")
    return as_config_has_them(changes)


def _settings(name: str) -> list[str]:
    return [field.name for field in fields(members(name).config)]


def as_config_has_them(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Values as a config holds them: one number as ``image_size`` is a square, a list, as JSON has them, a tuple."""
    values = {field: tuple(value) if isinstance(value, list) else value for field, value in changes.items()}
    if isinstance(size := values.get("image_size"), int):
        values["image_size"] = (size, size)
    return values
