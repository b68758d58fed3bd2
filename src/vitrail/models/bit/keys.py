"""Other libraries' names for a BiT's weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from vitrail.errors import CheckpointError, SettingError
from vitrail.models.bit.bit import EXPANSION, SIZES, Config
from vitrail.models.layout import (
    IMAGENET_CROP,
    KERNEL,
    POINTWISE,
    Described,
    Layout,
    Row,
    Turn,
    timm_input,
    transformers_input,
)

CONV_EPS = 1e-8  # timm's and Transformers'
CLASSIFIER = Turn(lambda x: x[0, 0].T, lambda x: (x.T[None, None],))  # a 1x1 convolution HWIO that is a linear map

TIMM_MODELS = {
    "resnetv2_50x1_bit": "bit-r50x1",
    "resnetv2_50x3_bit": "bit-r50x3",
    "resnetv2_101x1_bit": "bit-r101x1",
    "resnetv2_101x3_bit": "bit-r101x3",
    "resnetv2_152x2_bit": "bit-r152x2",
    "resnetv2_152x4_bit": "bit-r152x4",
}
TIMM_HARMLESS = {"in_chans", "num_classes", "zero_init_last", "drop_rate", "drop_path_rate"}
TIMM_FIXED = {"global_pool": "avg", "output_stride": 32}  # may be stated, but not otherwise

TRANSFORMERS_DEFAULTS = {
    "embedding_size": 64,
    "hidden_sizes": (256, 512, 1024, 2048),
    "depths": (3, 4, 6, 3),
    "num_groups": 32,
}
TRANSFORMERS_FIXED = {
    "layer_type": "preactivation",
    "hidden_act": "relu",
    "global_padding": None,
    "embedding_dynamic_padding": False,
    "output_stride": 32,
    "width_factor": 1,  # for which sizes are multiplied already
}


def timm(config: Config) -> tuple[Row, ...]:
    theirs, ours = "stages.{}.blocks.{}", "stages.{}.{}"
    return (
        Row("stem.conv", "stem.conv"),
        Row(f"{theirs}.norm{{}}", f"{ours}.norm{{}}"),
        Row(f"{theirs}.conv{{}}", f"{ours}.conv{{}}"),
        Row(f"{theirs}.downsample.conv", f"{ours}.shortcut"),
        Row("norm", "norm"),
        Row("head.fc.weight", "head.linear.weight", POINTWISE),
        Row("head.fc.bias", "head.linear.bias"),
    )


def transformers(config: Config) -> tuple[Row, ...]:
    theirs, ours = "encoder.stages.{}.layers.{}", "stages.{}.{}"
    return (
        Row("embedder.convolution", "stem.conv"),
        Row(f"{theirs}.norm{{}}", f"{ours}.norm{{}}"),
        Row(f"{theirs}.conv{{}}", f"{ours}.conv{{}}"),
        Row(f"{theirs}.downsample.conv", f"{ours}.shortcut"),
        Row("norm", "norm"),
        Row("classifier.1", "head.linear"),
    )


def google(config: Config) -> list[Row]:
    """The names in the authors' ``.npz``, which count blocks and units from 1, the latter in two digits."""
    rows = [
        Row("resnet/root_block/standardized_conv2d/kernel", "stem.conv.weight", KERNEL),
        *_group_norm("resnet", "norm"),
        Row("resnet/head/conv2d/kernel", "head.linear.weight", CLASSIFIER),
        Row("resnet/head/conv2d/bias", "head.linear.bias"),
    ]
    for stage, depth in enumerate(config.depths):
        for block in range(depth):
            theirs, ours = f"resnet/block{stage + 1}/unit{block + 1:02d}", f"stages.{stage}.{block}"
            rows.append(Row(f"{theirs}/a/proj/standardized_conv2d/kernel", f"{ours}.shortcut.weight", KERNEL))
            for number, letter in enumerate("abc", start=1):
                kernel = f"{theirs}/{letter}/standardized_conv2d/kernel"
                rows.append(Row(kernel, f"{ours}.conv{number}.weight", KERNEL))
                rows += _group_norm(f"{theirs}/{letter}", f"{ours}.norm{number}")
    return rows


def _group_norm(theirs: str, ours: str) -> tuple[Row, Row]:
    return Row(f"{theirs}/group_norm/gamma", f"{ours}.weight"), Row(f"{theirs}/group_norm/beta", f"{ours}.bias")


def described(config: Config) -> Described:
    """The published size of this shape and what differs from it, or the family with everything."""
    for name, size in SIZES.items():
        if (config.depths, config.width, config.groups) == (size.depths, size.width, size.groups):
            changes = {key: getattr(config, key) for key in ("conv_eps", "image_size", "channels")}
            return Described(name, changes)
    return Described("bit", asdict(config))


def hidden_sizes(config: Config) -> list[int]:
    """Channels of the stages' outputs."""
    return [config.width * 2**stage * EXPANSION for stage in range(len(config.depths))]


def read_timm(config: Mapping[str, Any]) -> Described | None:
    """A BiT of timm. Raises `CheckpointError` for one that was built with what ours does not have."""
    name = config.get("architecture", "")
    if name not in TIMM_MODELS:
        return None
    size = SIZES[TIMM_MODELS[name]]
    arguments = dict(config.get("model_args") or {})
    others = arguments.keys() - {"stem_chs", "channels"} - TIMM_HARMLESS
    if strange := [f"{key}={arguments[key]}" for key in sorted(others) if arguments[key] != TIMM_FIXED.get(key)]:
        raise CheckpointError(f"this {name} has {', '.join(strange)}, which Vitrail's BiT has not.")
    factor = size.width // 64
    ours = replace(size, **timm_input(config), width=arguments.get("stem_chs", 64) * factor, conv_eps=CONV_EPS)
    stages = [factor * channels for channels in arguments.get("channels", (256, 512, 1024, 2048))]
    _check_channels(ours, stages)
    return described(ours)


def write_timm(config: Config) -> dict[str, Any]:
    """``config.json`` for `timm.create_model`. Raises `SettingError` for what timm's BiT cannot be."""
    _check_eps(config, "timm")
    alike = [name for name, model in TIMM_MODELS.items() if SIZES[model].depths == config.depths]
    if not alike or config.groups != 32:
        raise SettingError("timm's BiT has the depths of R50, R101 or R152 and 32 groups; export it to transformers.")
    name = next((name for name in alike if SIZES[TIMM_MODELS[name]].width == config.width), alike[0])
    factor = SIZES[TIMM_MODELS[name]].width // 64
    return {
        "architecture": name,
        "model_args": {
            "stem_chs": config.width // factor,
            "channels": [size // factor for size in hidden_sizes(config)],
            "in_chans": config.channels,
        },
        "pretrained_cfg": {"input_size": [config.channels, *config.image_size]},
    }


def read_transformers(config: Mapping[str, Any]) -> Described | None:
    """A BiT of Transformers. Raises `CheckpointError` for one that was built with what ours does not have."""
    if config.get("model_type") != "bit":
        return None
    for name, value in TRANSFORMERS_FIXED.items():
        if config.get(name, value) != value:
            raise CheckpointError(f"this BiT has {name}={config[name]}, Vitrail's has {value}.")
    stated = {**TRANSFORMERS_DEFAULTS, **config}
    ours = Config(
        tuple(stated["depths"]),
        stated["embedding_size"],
        groups=stated["num_groups"],
        conv_eps=CONV_EPS,
        **transformers_input(config),
    )
    _check_channels(ours, stated["hidden_sizes"])
    return described(ours)


def write_transformers(config: Config) -> dict[str, Any]:
    """``config.json`` for Transformers. Raises `SettingError` for what its BiT cannot be."""
    _check_eps(config, "Transformers")
    if config.width % 8:
        raise SettingError(f"Transformers' BiT has a width that is a multiple of 8, this one has {config.width}.")
    return {
        "model_type": "bit",
        "architectures": ["BitForImageClassification"],
        "embedding_size": config.width,
        "hidden_sizes": hidden_sizes(config),
        "depths": list(config.depths),
        "num_groups": config.groups,
        **TRANSFORMERS_FIXED,
        "num_channels": config.channels,
        "image_size": list(config.image_size),
    }


def _check_channels(config: Config, stages: Any) -> None:
    if list(stages) != hidden_sizes(config):
        raise CheckpointError(
            f"this BiT's stages have {list(stages)} channels, Vitrail's double them: {hidden_sizes(config)}."
        )


def _check_eps(config: Config, library: str) -> None:
    if config.conv_eps != CONV_EPS:
        raise SettingError(
            f"{library} standardises kernels with the epsilon {CONV_EPS:g}, this BiT with {config.conv_eps:g}; open or "
            f"train it with conv_eps={CONV_EPS:g} to export it."
        )


HALF = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5), "interpolation": "bilinear"}

LAYOUTS: dict[str, Layout] = {
    "timm": Layout(timm, preprocess={**IMAGENET_CROP, **HALF}, read=read_timm, write=write_timm),
    "transformers": Layout(
        transformers,
        prefix="bit.",
        preprocess={**IMAGENET_CROP, **HALF},
        read=read_transformers,
        write=write_transformers,
    ),
    "google": Layout(google, preprocess={"resize": "squash", "crop_fraction": 1.0, **HALF}),
}
