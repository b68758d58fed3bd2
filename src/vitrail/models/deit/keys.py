"""DeiT's weights in other libraries: timm, Transformers, and the authors' own files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from vitrail.errors import CheckpointError, SettingError
from vitrail.models.deit.deit import SIZES, Config
from vitrail.models.layout import (
    STACKED,
    Described,
    Layout,
    Row,
    nearest_size,
    timm_input,
    timm_mlp_ratio,
    transformers_input,
)

TIMM_SIZES = {  # timm's architectures and our names; the first of several is the one to write
    "deit_tiny_patch16_224": "deit-ti16",
    "deit_small_patch16_224": "deit-s16",
    "deit_base_patch16_224": "deit-b16",
    "deit_base_patch16_384": "deit-b16",
    "deit_tiny_distilled_patch16_224": "deit-ti16-distilled",
    "deit_small_distilled_patch16_224": "deit-s16-distilled",
    "deit_base_distilled_patch16_224": "deit-b16-distilled",
    "deit_base_distilled_patch16_384": "deit-b16-distilled",
    "deit3_small_patch16_224": "deit3-s16",
    "deit3_small_patch16_384": "deit3-s16",
    "deit3_medium_patch16_224": "deit3-m16",
    "deit3_base_patch16_224": "deit3-b16",
    "deit3_base_patch16_384": "deit3-b16",
    "deit3_large_patch16_224": "deit3-l16",
    "deit3_large_patch16_384": "deit3-l16",
    "deit3_huge_patch14_224": "deit3-h14",
}
TIMM_SHAPE = {"embed_dim": "width", "depth": "depth", "num_heads": "heads", "patch_size": "patch_size"}
TIMM_FIXED = {"global_pool": "token", "class_token": True, "qkv_bias": True}  # may be stated, but not otherwise
TIMM_HARMLESS = {"img_size", "in_chans", "num_classes", "drop_rate", "drop_path_rate", "pos_drop_rate", "weight_init"}

TRANSFORMERS_SHAPE = {
    "hidden_size": "width",
    "num_hidden_layers": "depth",
    "num_attention_heads": "heads",
    "intermediate_size": "mlp",
    "patch_size": "patch_size",
    "layer_norm_eps": "norm_eps",
}
TRANSFORMERS_DEFAULTS = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "patch_size": 16,
    "layer_norm_eps": 1e-12,
}


def paper_rows(config: Config) -> Sequence[Row]:
    """The authors' names; the factors of DeiT III lie beside the modules of a block."""
    return [
        Row("cls_token", "class_token"),
        Row("dist_token", "distillation_token"),
        Row("pos_embed", "positions"),
        Row("patch_embed.proj", "patch_embedding.proj"),
        Row("blocks.{}.norm1", "blocks.{}.norm1"),
        Row("blocks.{}.attn", "blocks.{}.attention"),
        Row("blocks.{}.gamma_1", "blocks.{}.scale1.gamma"),
        Row("blocks.{}.norm2", "blocks.{}.norm2"),
        Row("blocks.{}.mlp", "blocks.{}.mlp"),
        Row("blocks.{}.gamma_2", "blocks.{}.scale2.gamma"),
        Row("norm", "norm"),
        Row("head", "head.linear"),
        Row("head_dist", "head.distillation"),
    ]


def timm_rows(config: Config) -> Sequence[Row]:
    """The authors' names but for the factors, which are modules of their own."""
    scales = [Row("blocks.{}.ls1", "blocks.{}.scale1"), Row("blocks.{}.ls2", "blocks.{}.scale2")]
    return [*scales, *paper_rows(config)]


def transformers_rows(config: Config) -> Sequence[Row]:
    """The names in files, of version 5, too."""
    layer, block = "encoder.layer.{}", "blocks.{}"
    qkv = tuple(f"{layer}.attention.attention.{part}" for part in ("query", "key", "value"))
    return [
        *_around_the_blocks(config),
        *(Row(tuple(f"{name}.{x}" for name in qkv), f"{block}.attention.qkv.{x}", STACKED) for x in ("weight", "bias")),
        Row(f"{layer}.attention.output.dense", f"{block}.attention.proj"),
        Row(f"{layer}.layernorm_before", f"{block}.norm1"),
        Row(f"{layer}.layernorm_after", f"{block}.norm2"),
        Row(f"{layer}.intermediate.dense", f"{block}.mlp.fc1"),
        Row(f"{layer}.output.dense", f"{block}.mlp.fc2"),
    ]


def transformers_5_rows(config: Config) -> Sequence[Row]:
    """The names that version 5 uses in memory."""
    layer, block = "layers.{}", "blocks.{}"
    qkv = tuple(f"{layer}.attention.{part}_proj" for part in "qkv")
    return [
        *_around_the_blocks(config),
        *(Row(tuple(f"{name}.{x}" for name in qkv), f"{block}.attention.qkv.{x}", STACKED) for x in ("weight", "bias")),
        Row(f"{layer}.attention.o_proj", f"{block}.attention.proj"),
        Row(f"{layer}.layernorm_before", f"{block}.norm1"),
        Row(f"{layer}.layernorm_after", f"{block}.norm2"),
        Row(f"{layer}.mlp", f"{block}.mlp"),
    ]


def _around_the_blocks(config: Config) -> list[Row]:
    return [
        Row("embeddings.cls_token", "class_token"),
        Row("embeddings.distillation_token", "distillation_token"),
        Row("embeddings.position_embeddings", "positions"),
        Row("embeddings.patch_embeddings.projection", "patch_embedding.proj"),
        Row("layernorm", "norm"),
        Row("classifier" if config.class_only else "cls_classifier", "head.linear"),
        Row("distillation_classifier", "head.distillation"),
    ]


def described(config: Config) -> Described:
    """The published size of this shape and what differs from it, or the family with everything."""

    def shape(of: Config) -> tuple[object, ...]:
        scaled = of.layer_scale is not None
        return of.width, of.depth, of.heads, of.mlp, of.patch_size, of.distilled, of.token_positions, scaled

    return nearest_size("deit", config, SIZES, shape)


def read_timm(config: Mapping[str, Any]) -> Described | None:
    """A DeiT or DeiT III of timm. Raises `CheckpointError` for one that was built with what ours does not have."""
    name = TIMM_SIZES.get(config.get("architecture", ""))
    if name is None:
        return None
    arguments = dict(config.get("model_args") or {})
    known = {*TIMM_SHAPE, *TIMM_HARMLESS, "mlp_ratio", "init_values", "no_embed_class"}
    if strange := [key for key, value in arguments.items() if key not in known and value != TIMM_FIXED.get(key)]:
        raise CheckpointError(f"this {config['architecture']} has {', '.join(strange)}, which Vitrail's DeiT has not.")
    changes = {ours: arguments[theirs] for theirs, ours in TIMM_SHAPE.items() if theirs in arguments}
    size = replace(SIZES[name], **timm_input(config), **changes)
    ratio = arguments.get("mlp_ratio", SIZES[name].mlp / SIZES[name].width)
    return described(
        replace(
            size,
            mlp=int(size.width * ratio),
            layer_scale=arguments.get("init_values", size.layer_scale),
            token_positions=not arguments.get("no_embed_class", not size.token_positions),
        )
    )


def write_timm(config: Config) -> dict[str, Any]:
    """``config.json`` for `timm.create_model`. Raises `SettingError` for what timm's DeiT cannot be."""
    if config.distilled and config.class_only:
        raise SettingError("timm's distilled DeiT has two classifiers, this one has one; export it to transformers.")
    if config.distilled and not config.token_positions:
        raise SettingError("timm has no distilled DeiT without positions on its first two tokens, as this one is.")
    if config.norm_eps != 1e-6:
        raise SettingError(f"timm's DeiT normalises with the epsilon 1e-06, this one with {config.norm_eps:g}.")
    published = {ours: theirs for theirs, ours in reversed(TIMM_SIZES.items())}
    plain = "deit_base_distilled_patch16_224" if config.distilled else "deit_base_patch16_224"
    return {
        "architecture": published.get(described(config).model, plain),
        "num_features": config.width,
        "global_pool": "token",
        "model_args": {
            "img_size": list(config.image_size),
            "in_chans": config.channels,
            **{theirs: getattr(config, ours) for theirs, ours in TIMM_SHAPE.items()},
            "mlp_ratio": timm_mlp_ratio(config.width, config.mlp),
            "init_values": config.layer_scale,
            "no_embed_class": not config.token_positions,
        },
    }


def read_transformers(config: Mapping[str, Any]) -> Described | None:
    """A DeiT of Transformers, which always has a distillation token; `CheckpointError` for what ours does not have."""
    if config.get("model_type") != "deit":
        return None
    if not config.get("qkv_bias", True) or config.get("hidden_act", "gelu") != "gelu":
        raise CheckpointError("Vitrail's DeiT has GELU, and biases on queries, keys and values; this one has not.")
    stated = {**TRANSFORMERS_DEFAULTS, **config}
    return described(
        Config(
            **{ours: stated[theirs] for theirs, ours in TRANSFORMERS_SHAPE.items()},
            **transformers_input(config),
            distilled=True,
            class_only="DeiTForImageClassification" in (config.get("architectures") or ()),
        )
    )


def write_transformers(config: Config) -> dict[str, Any]:
    """``config.json`` for Transformers. Raises `SettingError` for what its DeiT cannot be."""
    if not config.distilled:
        raise SettingError(
            "Transformers' DeiT always has a distillation token and this one has none; export it to timm instead."
        )
    if not config.token_positions or config.layer_scale is not None:
        raise SettingError("Transformers has no DeiT III; export it to timm instead.")
    kind = "DeiTForImageClassification" if config.class_only else "DeiTForImageClassificationWithTeacher"
    height, width = config.image_size
    return {
        "model_type": "deit",
        "architectures": [kind],
        **{theirs: getattr(config, ours) for theirs, ours in TRANSFORMERS_SHAPE.items()},
        "image_size": height if height == width else [height, width],
        "num_channels": config.channels,
        "qkv_bias": True,
        "hidden_act": "gelu",
    }


LAYOUTS = {
    "timm": Layout(timm_rows, resampling="bicubic-antialias", read=read_timm, write=write_timm),
    "transformers": Layout(
        transformers_rows, prefix="deit.", ignored=("pooler",), read=read_transformers, write=write_transformers
    ),
    "transformers-5": Layout(transformers_5_rows, prefix="deit.", ignored=("pooler",)),
    "paper": Layout(paper_rows),
}
