"""PVT's weights in other libraries: Transformers, and the authors' own files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vitrail.errors import CheckpointError, SettingError
from vitrail.models.layout import IMAGENET_CROP, PAIRED, Described, Layout, Row, nearest_size, transformers_input
from vitrail.models.pvt.pvt import SIZES, Config, patch_size

TRANSFORMERS_SHAPE = {
    "depths": "depths",
    "hidden_sizes": "widths",
    "num_attention_heads": "heads",
    "mlp_ratios": "mlp_ratios",
    "sequence_reduction_ratios": "reductions",
}
TRANSFORMERS_DEFAULTS = {
    "depths": (2, 2, 2, 2),
    "hidden_sizes": (64, 128, 320, 512),
    "num_attention_heads": (1, 2, 5, 8),
    "mlp_ratios": (8, 8, 4, 4),
    "sequence_reduction_ratios": (8, 4, 2, 1),
    "layer_norm_eps": 1e-6,
}


def paper_rows(config: Config) -> Sequence[Row]:
    """The authors' names: stages counted from 1, each part of a stage for itself."""
    theirs, ours = "block{+1}.{}", "stages.{}.blocks.{}"
    return [
        Row("patch_embed{+1}.proj", "stages.{}.embedding.conv"),
        Row("patch_embed{+1}.norm", "stages.{}.embedding.norm"),
        Row("pos_embed{+1}", "stages.{}.positions"),
        Row("cls_token", f"stages.{len(config.depths) - 1}.class_token"),
        Row(f"{theirs}.norm1", f"{ours}.norm1"),
        Row(f"{theirs}.attn.q", f"{ours}.attention.q"),
        Row(f"{theirs}.attn.kv", f"{ours}.attention.kv"),
        Row(f"{theirs}.attn.proj", f"{ours}.attention.proj"),
        Row(f"{theirs}.attn.sr", f"{ours}.attention.reduction.conv"),
        Row(f"{theirs}.attn.norm", f"{ours}.attention.reduction.norm"),
        Row(f"{theirs}.norm2", f"{ours}.norm2"),
        Row(f"{theirs}.mlp", f"{ours}.mlp"),
        Row("norm", "norm"),
        Row("head", "head.linear"),
    ]


def transformers_rows(config: Config) -> Sequence[Row]:
    """The names in files, which are those in memory, too."""
    patches, theirs, ours = "encoder.patch_embeddings.{}", "encoder.block.{}.{}", "stages.{}.blocks.{}"
    attention = f"{theirs}.attention.self"
    kv = (
        Row((f"{attention}.key.{x}", f"{attention}.value.{x}"), f"{ours}.attention.kv.{x}", PAIRED)
        for x in ("weight", "bias")
    )
    return [
        Row(f"{patches}.projection", "stages.{}.embedding.conv"),
        Row(f"{patches}.layer_norm", "stages.{}.embedding.norm"),
        Row(f"{patches}.position_embeddings", "stages.{}.positions"),
        Row(f"{patches}.cls_token", "stages.{}.class_token"),
        Row(f"{theirs}.layer_norm_1", f"{ours}.norm1"),
        Row(f"{attention}.query", f"{ours}.attention.q"),
        *kv,
        Row(f"{theirs}.attention.output.dense", f"{ours}.attention.proj"),
        Row(f"{attention}.sequence_reduction", f"{ours}.attention.reduction.conv"),
        Row(f"{attention}.layer_norm", f"{ours}.attention.reduction.norm"),
        Row(f"{theirs}.layer_norm_2", f"{ours}.norm2"),
        Row(f"{theirs}.mlp.dense1", f"{ours}.mlp.fc1"),
        Row(f"{theirs}.mlp.dense2", f"{ours}.mlp.fc2"),
        Row("encoder.layer_norm", "norm"),
        Row("classifier", "head.linear"),
    ]


def read_transformers(config: Mapping[str, Any]) -> Described | None:
    """A PVT of Transformers, with one epsilon for all LayerNorms; `CheckpointError` for what ours does not have."""
    if config.get("model_type") != "pvt":
        return None
    stated = {**TRANSFORMERS_DEFAULTS, **config}
    sides = [patch_size(stage) for stage in range(len(stated["depths"]))]
    if any(list(config.get(key, sides)) != sides for key in ("patch_sizes", "strides")):
        raise CheckpointError(f"our PVT has patches of {sides}, one beside the other; this config.json says otherwise.")
    if config.get("hidden_act", "gelu") != "gelu":
        raise CheckpointError(f"our PVT has GELU in its MLPs, this config.json says '{config['hidden_act']}'.")
    shape: dict[str, Any] = {ours: tuple(stated[theirs]) for theirs, ours in TRANSFORMERS_SHAPE.items()}
    return described(
        Config(
            **shape,
            **transformers_input(config),
            qkv_bias=config.get("qkv_bias", True),
            norm_eps=stated["layer_norm_eps"],
            conv_norm_eps=stated["layer_norm_eps"],
        )
    )


def described(config: Config) -> Described:
    """The published size of this shape and what differs from it, or the family with everything."""
    names = TRANSFORMERS_SHAPE.values()
    return nearest_size("pvt", config, SIZES, lambda of: tuple(getattr(of, name) for name in names))


def write_transformers(config: Config) -> dict[str, Any]:
    """``config.json`` for Transformers. Raises `SettingError` for what its PVT cannot be."""
    height, width = config.image_size
    if height != width:
        raise SettingError(f"Transformers' PVT is for square images, this one for {height}x{width}.")
    if config.conv_norm_eps != config.norm_eps:
        raise SettingError(
            f"Transformers' PVT has one epsilon for all its norms, this one has {config.norm_eps:g} in its blocks and "
            f"{config.conv_norm_eps:g} behind convolutions; train one with --config conv_norm_eps={config.norm_eps:g}."
        )
    sides = [patch_size(stage) for stage in range(len(config.depths))]
    return {
        "model_type": "pvt",
        "architectures": ["PvtForImageClassification"],
        **{theirs: list(getattr(config, ours)) for theirs, ours in TRANSFORMERS_SHAPE.items()},
        "num_encoder_blocks": len(config.depths),
        "patch_sizes": sides,
        "strides": sides,
        "image_size": height,
        "num_channels": config.channels,
        "qkv_bias": config.qkv_bias,
        "hidden_act": "gelu",
        "layer_norm_eps": config.norm_eps,
    }


LAYOUTS: dict[str, Layout] = {
    "transformers": Layout(
        transformers_rows,
        prefix="pvt.",
        resampling="bilinear-half-pixel",
        preprocess={**IMAGENET_CROP, "resize": "squash", "crop_fraction": 1.0},
        read=read_transformers,
        write=write_transformers,
    ),
    "paper": Layout(paper_rows, resampling="bilinear-half-pixel"),
}
