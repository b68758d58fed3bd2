"""Other libraries' names for the weights of a ResNet or ResNeXt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from vitrail.errors import CheckpointError, SettingError
from vitrail.models.layout import IMAGENET_CROP, Described, Layout, Row, timm_input, transformers_input
from vitrail.models.resnet.resnet import BLOCKS, SIZES, Config

# timm's architectures with the same blocks: our name and what differs; the first of several is the one to write.
TIMM_MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "resnet18": ("resnet-18", {}),
    "resnet34": ("resnet-34", {}),
    "resnet50": ("resnet-50", {}),
    "resnet101": ("resnet-101", {}),
    "resnet152": ("resnet-152", {}),
    "resnext50_32x4d": ("resnext-50-32x4d", {}),
    "resnext101_32x8d": ("resnext-101-32x8d", {}),
    "resnext101_64x4d": ("resnext-101-64x4d", {}),
    "resnet26": ("resnet-50", {"depths": (2, 2, 2, 2)}),
    "resnet200": ("resnet-50", {"depths": (3, 24, 36, 3)}),
    "resnext101_32x4d": ("resnext-101-32x8d", {"group_width": 4}),
    "resnext101_32x16d": ("resnext-101-32x8d", {"group_width": 16}),
    "resnext101_32x32d": ("resnext-101-32x8d", {"group_width": 32}),
    "wide_resnet50_2": ("resnet-50", {"group_width": 128}),
    "wide_resnet101_2": ("resnet-101", {"group_width": 128}),
}
TIMM_SHAPE = {"layers": "depths", "cardinality": "groups", "base_width": "group_width"}
TIMM_HARMLESS = {"in_chans", "num_classes", "zero_init_last", "drop_rate", "drop_path_rate", "drop_block_rate"}
TIMM_FIXED = {"global_pool": "avg", "output_stride": 32}  # may be stated, but not otherwise

TRANSFORMERS_DEFAULTS = {
    "embedding_size": 64,
    "hidden_sizes": (256, 512, 1024, 2048),
    "depths": (3, 4, 6, 3),
    "layer_type": "bottleneck",
}
TRANSFORMERS_FIXED = {"hidden_act": "relu", "downsample_in_first_stage": False, "downsample_in_bottleneck": False}


def torchvision(config: Config) -> tuple[Row, ...]:
    """Theirs, and timm's too."""
    return _rows("downsample", "fc")


def cifar(config: Config) -> tuple[Row, ...]:
    return _rows("shortcut", "linear")


def _rows(shortcut: str, classifier: str) -> tuple[Row, ...]:
    return (
        Row("conv1", "stem.0.conv"),
        Row("bn1", "stem.0.norm"),
        Row("layer{+1}.{}.conv{}", "stages.{}.{}.conv{}.conv"),
        Row("layer{+1}.{}.bn{}", "stages.{}.{}.conv{}.norm"),
        Row(f"layer{{+1}}.{{}}.{shortcut}.0", "stages.{}.{}.shortcut.conv"),
        Row(f"layer{{+1}}.{{}}.{shortcut}.1", "stages.{}.{}.shortcut.norm"),
        Row(classifier, "head.linear"),
    )


def transformers(config: Config) -> tuple[Row, ...]:
    theirs, ours = "encoder.stages.{}.layers.{}", "stages.{}.{}"
    return (
        Row("embedder.embedder.convolution", "stem.0.conv"),
        Row("embedder.embedder.normalization", "stem.0.norm"),
        Row(f"{theirs}.layer.{{-1}}.convolution", f"{ours}.conv{{}}.conv"),
        Row(f"{theirs}.layer.{{-1}}.normalization", f"{ours}.conv{{}}.norm"),
        Row(f"{theirs}.shortcut.convolution", f"{ours}.shortcut.conv"),
        Row(f"{theirs}.shortcut.normalization", f"{ours}.shortcut.norm"),
        Row("classifier.1", "head.linear"),
    )


def described(config: Config) -> Described:
    """The published size of this shape, or the family with everything."""
    for name, size in SIZES.items():
        if same_weights(config, size):
            return Described(name, {"image_size": config.image_size, "channels": config.channels})
    return Described("resnet", asdict(config))


def same_weights(one: Config, other: Config) -> bool:
    """Whether they differ in nothing but what does not change the network's shape."""
    return one == replace(other, image_size=one.image_size, channels=one.channels, zero_init=one.zero_init)


def read_timm(config: Mapping[str, Any]) -> Described | None:
    """A ResNet or ResNeXt of timm. Raises `CheckpointError` for one that was built with what ours does not have."""
    name = config.get("architecture", "")
    if name not in TIMM_MODELS:
        return None
    arguments = dict(config.get("model_args") or {})
    others = arguments.keys() - TIMM_SHAPE.keys() - TIMM_HARMLESS
    if strange := [f"{key}={arguments[key]}" for key in sorted(others) if arguments[key] != TIMM_FIXED.get(key)]:
        raise CheckpointError(f"this {name} has {', '.join(strange)}, which Vitrail's ResNet has not.")
    model, changes = TIMM_MODELS[name]
    stated = {ours: arguments[theirs] for theirs, ours in TIMM_SHAPE.items() if theirs in arguments}
    depths = tuple(stated.pop("depths", changes.get("depths", SIZES[model].depths)))
    size = replace(SIZES[model], **{**changes, **timm_input(config), **stated, "depths": depths})
    if (size.groups, size.group_width) == (1, size.width):
        size = replace(size, group_width=None)
    return described(size)


def write_timm(config: Config) -> dict[str, Any]:
    """``config.json`` for `timm.create_model`. Raises `SettingError` for what timm's ResNet cannot be."""
    if (config.stem, config.shortcut, config.width, len(config.depths)) != ("imagenet", "projection", 64, 4):
        raise SettingError(
            "timm's ResNet begins with the stem for ImageNet and 64 channels, and has four stages with projections as "
            "shortcuts; this one differs, so keep it as it is."
        )
    arguments: dict[str, Any] = {"layers": list(config.depths), "in_chans": config.channels}
    if config.block == "bottleneck":
        arguments |= {"cardinality": config.groups, "base_width": config.group_width or config.width}
    return {
        "architecture": _timm_name(config),
        "model_args": arguments,
        "pretrained_cfg": {"input_size": [config.channels, *config.image_size]},
    }


def _timm_name(config: Config) -> str:
    """The architecture of this shape, else one of its kind, which ``model_args`` then changes."""
    for name, (model, changes) in TIMM_MODELS.items():
        if same_weights(config, replace(SIZES[model], **changes)):
            return name
    return "resnet18" if config.block == "basic" else "resnet50"


def read_transformers(config: Mapping[str, Any]) -> Described | None:
    """A ResNet of Transformers. Raises `CheckpointError` for one that was built with what ours does not have."""
    if config.get("model_type") != "resnet":
        return None
    for name, value in TRANSFORMERS_FIXED.items():
        if config.get(name, value) != value:
            raise CheckpointError(f"this ResNet has {name}={config[name]}, Vitrail's has {value}.")
    stated = {**TRANSFORMERS_DEFAULTS, **config}
    ours = Config(
        stated["layer_type"], tuple(stated["depths"]), width=stated["embedding_size"], **transformers_input(config)
    )
    if list(stated["hidden_sizes"]) != hidden_sizes(ours):
        raise CheckpointError(
            f"this ResNet's stages have {stated['hidden_sizes']} channels, Vitrail's double them: {hidden_sizes(ours)}."
        )
    return described(ours)


def write_transformers(config: Config) -> dict[str, Any]:
    """``config.json`` for Transformers. Raises `SettingError` for what its ResNet cannot be."""
    if (config.stem, config.shortcut, config.groups, config.group_width) != ("imagenet", "projection", 1, None):
        raise SettingError(
            "Transformers' ResNet has the stem for ImageNet, projections as shortcuts and no groups; this one differs, "
            "so export it to timm if that is a ResNeXt, else keep it as it is."
        )
    return {
        "model_type": "resnet",
        "architectures": ["ResNetForImageClassification"],
        "embedding_size": config.width,
        "hidden_sizes": hidden_sizes(config),
        "depths": list(config.depths),
        "layer_type": config.block,
        **TRANSFORMERS_FIXED,
        "num_channels": config.channels,
        "image_size": list(config.image_size),
    }


def hidden_sizes(config: Config) -> list[int]:
    """Channels of the stages' outputs."""
    return [config.width * 2**stage * BLOCKS[config.block].expansion for stage in range(len(config.depths))]


LAYOUTS: dict[str, Layout] = {
    "torchvision": Layout(torchvision, preprocess={**IMAGENET_CROP, "interpolation": "bilinear"}),
    "timm": Layout(torchvision, read=read_timm, write=write_timm),
    "transformers": Layout(transformers, prefix="resnet.", read=read_transformers, write=write_transformers),
    # Idelbayev's networks of section 4.2, github.com/akamaster/pytorch_resnet_cifar10
    "cifar": Layout(cifar, preprocess={**IMAGENET_CROP, "resize": "squash", "crop_fraction": 1.0}),
}
