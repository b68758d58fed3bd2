"""PVT v2's weights in other libraries: timm, Transformers, and the authors' own files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from vitrail.errors import CheckpointError, SettingError
from vitrail.models.layout import (
    IMAGENET_CROP,
    PAIRED,
    Described,
    Layout,
    Row,
    nearest_size,
    timm_input,
    transformers_input,
)
from vitrail.models.pvt_v2.pvt_v2 import SIZES, Config

TIMM_MODELS = {
    "pvt_v2_b0": "pvt-v2-b0",
    "pvt_v2_b1": "pvt-v2-b1",
    "pvt_v2_b2": "pvt-v2-b2",
    "pvt_v2_b2_li": "pvt-v2-b2-li",
    "pvt_v2_b3": "pvt-v2-b3",
    "pvt_v2_b4": "pvt-v2-b4",
    "pvt_v2_b5": "pvt-v2-b5",
}
TIMM_SHAPE = {
    "depths": "depths",
    "embed_dims": "widths",
    "num_heads": "heads",
    "mlp_ratios": "mlp_ratios",
    "sr_ratios": "reductions",
}
TIMM_FLAGS = {"linear": "linear", "qkv_bias": "qkv_bias"}
TIMM_RATES = {"drop_rate", "proj_drop_rate", "attn_drop_rate", "drop_path_rate"}
TIMM_HARMLESS = {"img_size", "in_chans", "num_classes", "global_pool", *TIMM_RATES}

TRANSFORMERS_SHAPE = {
    "depths": "depths",
    "hidden_sizes": "widths",
    "num_attention_heads": "heads",
    "mlp_ratios": "mlp_ratios",
    "sr_ratios": "reductions",
}
TRANSFORMERS_DEFAULTS = {
    "depths": (2, 2, 2, 2),
    "hidden_sizes": (32, 64, 160, 256),
    "num_attention_heads": (1, 2, 5, 8),
    "mlp_ratios": (8, 8, 4, 4),
    "sr_ratios": (8, 4, 2, 1),
    "layer_norm_eps": 1e-6,
}
OURS = "stages.{}.blocks.{}"


def paper_rows(config: Config) -> Sequence[Row]:
    """The authors' names: stages counted from 1, each part of a stage for itself."""
    return [
        Row("patch_embed{+1}.proj", "stages.{}.embedding.conv"),
        Row("patch_embed{+1}.norm", "stages.{}.embedding.norm"),
        Row("block{+1}.{}.mlp.dwconv.dwconv", f"{OURS}.mlp.conv"),
        *_block_rows("block{+1}.{}"),
        Row("norm{+1}", "stages.{}.norm"),
        Row("head", "head.linear"),
    ]


def timm_rows(config: Config) -> Sequence[Row]:
    """timm's names: stages that hold their parts, but for the first one's embedding."""
    return [
        Row("patch_embed.proj", "stages.0.embedding.conv"),
        Row("patch_embed.norm", "stages.0.embedding.norm"),
        Row("stages.{}.downsample.proj", "stages.{}.embedding.conv"),
        Row("stages.{}.downsample.norm", "stages.{}.embedding.norm"),
        Row("stages.{}.blocks.{}.mlp.dwconv", f"{OURS}.mlp.conv"),
        *_block_rows("stages.{}.blocks.{}"),
        Row("stages.{}.norm", "stages.{}.norm"),
        Row("head", "head.linear"),
    ]


def _block_rows(theirs: str) -> list[Row]:
    """What the authors and timm have under the same names in a block."""
    return [
        Row(f"{theirs}.norm1", f"{OURS}.norm1"),
        Row(f"{theirs}.attn.q", f"{OURS}.attention.q"),
        Row(f"{theirs}.attn.kv", f"{OURS}.attention.kv"),
        Row(f"{theirs}.attn.proj", f"{OURS}.attention.proj"),
        Row(f"{theirs}.attn.sr", f"{OURS}.attention.reduction.conv"),
        Row(f"{theirs}.attn.norm", f"{OURS}.attention.reduction.norm"),
        Row(f"{theirs}.norm2", f"{OURS}.norm2"),
        Row(f"{theirs}.mlp.fc1", f"{OURS}.mlp.fc1"),
        Row(f"{theirs}.mlp.fc2", f"{OURS}.mlp.fc2"),
    ]


def transformers_rows(config: Config) -> Sequence[Row]:
    """The names in files, which are those in memory, too."""
    stage, theirs = "encoder.layers.{}", "encoder.layers.{}.blocks.{}"
    attention = f"{theirs}.attention"
    kv = (
        Row((f"{attention}.key.{x}", f"{attention}.value.{x}"), f"{OURS}.attention.kv.{x}", PAIRED)
        for x in ("weight", "bias")
    )
    return [
        Row(f"{stage}.patch_embedding.proj", "stages.{}.embedding.conv"),
        Row(f"{stage}.patch_embedding.layer_norm", "stages.{}.embedding.norm"),
        Row(f"{theirs}.layer_norm_1", f"{OURS}.norm1"),
        Row(f"{attention}.query", f"{OURS}.attention.q"),
        *kv,
        Row(f"{attention}.proj", f"{OURS}.attention.proj"),
        Row(f"{attention}.spatial_reduction", f"{OURS}.attention.reduction.conv"),
        Row(f"{attention}.layer_norm", f"{OURS}.attention.reduction.norm"),
        Row(f"{theirs}.layer_norm_2", f"{OURS}.norm2"),
        Row(f"{theirs}.mlp.dense1", f"{OURS}.mlp.fc1"),
        Row(f"{theirs}.mlp.dwconv.dwconv", f"{OURS}.mlp.conv"),
        Row(f"{theirs}.mlp.dense2", f"{OURS}.mlp.fc2"),
        Row(f"{stage}.layer_norm", "stages.{}.norm"),
        Row("classifier", "head.linear"),
    ]


def described(config: Config) -> Described:
    """The published size of this shape and what differs from it, or the family with everything."""
    names = (*TIMM_SHAPE.values(), "linear")
    return nearest_size("pvt-v2", config, SIZES, lambda of: tuple(getattr(of, name) for name in names))


def read_timm(config: Mapping[str, Any]) -> Described | None:
    """A PVT v2 of timm. Raises `CheckpointError` for one that was built with what ours does not have."""
    name = TIMM_MODELS.get(config.get("architecture", ""))
    if name is None:
        return None
    arguments = config.get("model_args") or {}
    if strange := sorted(arguments.keys() - TIMM_SHAPE.keys() - TIMM_FLAGS.keys() - TIMM_HARMLESS):
        raise CheckpointError(f"this PVT v2 was built with {', '.join(strange)}, which ours does not have.")
    changes, stages = timm_input(config), len(arguments.get("depths", SIZES[name].depths))
    changes |= {TIMM_SHAPE[key]: per_stage(arguments[key], stages) for key in TIMM_SHAPE if key in arguments}
    changes |= {TIMM_FLAGS[key]: arguments[key] for key in TIMM_FLAGS if key in arguments}
    return described(replace(SIZES[name], **changes))


def per_stage(value: Any, stages: int) -> tuple[Any, ...]:
    """timm takes one number for all stages, too."""
    return tuple(value) if isinstance(value, list | tuple) else (value,) * stages


def write_timm(config: Config) -> dict[str, Any]:
    """``config.json`` for `timm.create_model`. Raises `SettingError` for what timm's PVT v2 cannot be."""
    if (config.norm_eps, config.conv_norm_eps) != (1e-6, 1e-5):
        raise SettingError(
            "timm's PVT v2 has the epsilons 1e-06 in its blocks and 1e-05 behind convolutions, this one "
            f"{config.norm_eps:g} and {config.conv_norm_eps:g}; export it to transformers instead."
        )
    published = {ours: theirs for theirs, ours in TIMM_MODELS.items()}
    return {
        "architecture": published.get(described(config).model, "pvt_v2_b2"),
        "model_args": {
            "in_chans": config.channels,
            **{theirs: list(getattr(config, ours)) for theirs, ours in TIMM_SHAPE.items()},
            **{theirs: getattr(config, ours) for theirs, ours in TIMM_FLAGS.items()},
        },
        "pretrained_cfg": {"input_size": [config.channels, *config.image_size]},
    }


def read_transformers(config: Mapping[str, Any]) -> Described | None:
    """A PVT v2 of Transformers, with one epsilon for all LayerNorms; `CheckpointError` for what ours does not have."""
    if config.get("model_type") != "pvt_v2":
        return None
    stated = {**TRANSFORMERS_DEFAULTS, **config}
    patches = transformers_patches(len(stated["depths"]))
    if any(list(config.get(key, sides)) != sides for key, sides in patches.items()):
        raise CheckpointError(f"our PVT v2 has {patches}, this config.json has other patches.")
    if config.get("hidden_act", "gelu") != "gelu":
        raise CheckpointError(f"our PVT v2 has GELU in its MLPs, this config.json says '{config['hidden_act']}'.")
    shape: dict[str, Any] = {ours: tuple(stated[theirs]) for theirs, ours in TRANSFORMERS_SHAPE.items()}
    return described(
        Config(
            **shape,
            **transformers_input(config),
            linear=config.get("linear_attention", False),
            qkv_bias=config.get("qkv_bias", True),
            norm_eps=stated["layer_norm_eps"],
            conv_norm_eps=stated["layer_norm_eps"],
        )
    )


def transformers_patches(stages: int) -> dict[str, list[int]]:
    """The sides of patches and the steps between them, which Transformers could change and ours cannot."""
    return {"patch_sizes": [7] + [3] * (stages - 1), "strides": [4] + [2] * (stages - 1)}


def write_transformers(config: Config) -> dict[str, Any]:
    """``config.json`` for Transformers. Raises `SettingError` for what its PVT v2 cannot be."""
    if config.conv_norm_eps != config.norm_eps:
        raise SettingError(
            f"Transformers' PVT v2 has one epsilon for all its norms, this one has {config.norm_eps:g} in its blocks "
            f"and {config.conv_norm_eps:g} behind convolutions; export it to timm instead."
        )
    return {
        "model_type": "pvt_v2",
        "architectures": ["PvtV2ForImageClassification"],
        **{theirs: list(getattr(config, ours)) for theirs, ours in TRANSFORMERS_SHAPE.items()},
        **transformers_patches(len(config.depths)),
        "num_encoder_blocks": len(config.depths),
        "linear_attention": config.linear,
        "image_size": list(config.image_size),
        "num_channels": config.channels,
        "qkv_bias": config.qkv_bias,
        "hidden_act": "gelu",
        "layer_norm_eps": config.norm_eps,
    }


LAYOUTS: dict[str, Layout] = {
    "timm": Layout(timm_rows, preprocess={**IMAGENET_CROP, "crop_fraction": 0.9}, read=read_timm, write=write_timm),
    "transformers": Layout(
        transformers_rows,
        prefix="pvt_v2.",
        preprocess={**IMAGENET_CROP, "resize": "squash", "crop_fraction": 1.0},
        read=read_transformers,
        write=write_transformers,
    ),
    "paper": Layout(paper_rows),
}
