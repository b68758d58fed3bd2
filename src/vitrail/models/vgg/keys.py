"""Other libraries' names for a VGG's weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from vitrail.errors import SettingError
from vitrail.models.layout import IMAGENET_CROP, POINTWISE, Described, Layout, Row, Turn, timm_input
from vitrail.models.vgg.vgg import SIDE, SIZES, Config

# timm's fc6, a convolution over 7x7 places, as the linear map of their channels in a row that it is.
WINDOW = Turn(lambda x: x.flatten(1), lambda x: (x.unflatten(1, (-1, SIDE, SIDE)),))

TIMM_MODELS = {
    "vgg11": "vgg-11",
    "vgg13": "vgg-13",
    "vgg16": "vgg-16",
    "vgg19": "vgg-19",
    "vgg11_bn": "vgg-11-bn",
    "vgg13_bn": "vgg-13-bn",
    "vgg16_bn": "vgg-16-bn",
    "vgg19_bn": "vgg-19-bn",
}


def convolutions(config: Config) -> list[Row]:
    """Both libraries count all layers in one row, ReLUs and max-pools among them."""
    rows, place = [], 0
    for stage, depth in enumerate(config.depths):
        for number in range(depth):
            rows.append(Row(f"features.{place}", f"stages.{stage}.{number}.conv"))
            if config.batch_norm:
                rows.append(Row(f"features.{place + 1}", f"stages.{stage}.{number}.norm"))
            place += 3 if config.batch_norm else 2
        place += 1
    return rows


def torchvision(config: Config) -> list[Row]:
    return [
        *convolutions(config),
        Row("classifier.0", "fc6"),
        Row("classifier.3", "fc7"),
        Row("classifier.6", "head.linear"),
    ]


def timm(config: Config) -> list[Row]:
    return [
        *convolutions(config),
        Row("pre_logits.fc1.weight", "fc6.weight", WINDOW),
        Row("pre_logits.fc1.bias", "fc6.bias"),
        Row("pre_logits.fc2.weight", "fc7.weight", POINTWISE),
        Row("pre_logits.fc2.bias", "fc7.bias"),
        Row("head.fc", "head.linear"),
    ]


def read_timm(config: Mapping[str, Any]) -> Described | None:
    model = TIMM_MODELS.get(config.get("architecture", ""))
    if model is None:
        return None
    arguments = config.get("model_args", {})
    changes = {"dense": True, **timm_input(config)}
    if "mlp_ratio" in arguments:
        changes["hidden"] = (int(4096 * arguments["mlp_ratio"]), 4096)
    if "drop_rate" in arguments:
        changes["dropout"] = arguments["drop_rate"]
    return Described(model, changes)


def write_timm(config: Config) -> dict[str, Any]:
    if not config.dense and max(config.image_size) // 32 > SIDE:
        raise SettingError("timm's VGG reads such large images by dense evaluation; export it with dense=true.")
    for architecture, name in TIMM_MODELS.items():
        size = SIZES[name]
        if config == replace(
            config, depths=size.depths, batch_norm=size.batch_norm, widths=size.widths, hidden=(config.hidden[0], 4096)
        ):
            return {
                "architecture": architecture,
                "model_args": {
                    "in_chans": config.channels,
                    "mlp_ratio": config.hidden[0] / 4096,
                    "drop_rate": config.dropout,
                },
                "pretrained_cfg": {"input_size": [config.channels, *config.image_size]},
            }
    raise SettingError(
        f"timm has no VGG of {config.depths} convolutions of {config.widths} channels with {config.hidden[1]} units in "
        "fc7; export one of the published sizes."
    )


BILINEAR_CROP = {**IMAGENET_CROP, "interpolation": "bilinear"}

LAYOUTS: dict[str, Layout] = {
    "timm": Layout(timm, preprocess=BILINEAR_CROP, read=read_timm, write=write_timm),
    "torchvision": Layout(torchvision, preprocess=BILINEAR_CROP),
}
