"""DINOv3's weights in other libraries: timm, Transformers, and the authors' own files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch

from vitrail.errors import CheckpointError, SettingError
from vitrail.models.dinov3.dinov3 import NORM_EPS, SIZES, Config
from vitrail.models.layout import (
    IMAGENET_CROP,
    STACKED,
    Described,
    Layout,
    Row,
    Turn,
    nearest_size,
    timm_input,
    timm_mlp_ratio,
    transformers_input,
)

TWO = Turn(lambda query, value: torch.stack([query, value]), lambda x: x.unbind())
MASKED = Turn(  # a bias of the keys, too, which the authors' code multiplies by 0
    lambda x: x.unflatten(0, (3, -1))[[0, 2]], lambda x: (torch.cat([x[0], torch.zeros_like(x[0]), x[1]]),)
)

TIMM_SIZES = {  # and whether queries and values have biases; those that timm left out are zero
    "vit_small_patch16_dinov3": ("dinov3-s16", False),
    "vit_small_patch16_dinov3_qkvb": ("dinov3-s16", True),
    "vit_small_plus_patch16_dinov3": ("dinov3-s16plus", False),
    "vit_small_plus_patch16_dinov3_qkvb": ("dinov3-s16plus", True),
    "vit_base_patch16_dinov3": ("dinov3-b16", False),
    "vit_base_patch16_dinov3_qkvb": ("dinov3-b16", True),
    "vit_large_patch16_dinov3": ("dinov3-l16", False),
    "vit_large_patch16_dinov3_qkvb": ("dinov3-l16", True),
    "vit_huge_plus_patch16_dinov3": ("dinov3-h16plus", False),
    "vit_huge_plus_patch16_dinov3_qkvb": ("dinov3-h16plus", True),
    "vit_7b_patch16_dinov3": ("dinov3-7b16", False),
}
TIMM_SHAPE = {
    "embed_dim": "width",
    "depth": "depth",
    "num_heads": "heads",
    "patch_size": "patch_size",
    "qkv_bias": "qv_bias",
    "swiglu_mlp": "gated",
    "num_reg_tokens": "registers",
}
TIMM_POOLS = {"token": "class", "avg": "mean"}
TIMM_HARMLESS = {  # what these say is said elsewhere, or matters in training only
    *("img_size", "in_chans", "num_classes", "dynamic_img_size", "init_values", "head_init_scale"),
    *("drop_rate", "pos_drop_rate", "patch_drop_rate", "proj_drop_rate", "attn_drop_rate", "drop_path_rate"),
    *("rope_shift_coords", "rope_jitter_coords", "rope_rescale_coords"),
}

TRANSFORMERS_SHAPE = {  # their names, ours, and their defaults
    "hidden_size": ("width", 384),
    "num_hidden_layers": ("depth", 12),
    "num_attention_heads": ("heads", 6),
    "intermediate_size": ("mlp", 1536),
    "patch_size": ("patch_size", 16),
    "use_gated_mlp": ("gated", False),
    "query_bias": ("qv_bias", True),
    "value_bias": ("qv_bias", True),
    "num_register_tokens": ("registers", 0),
}
TRANSFORMERS_FIXED = {
    "key_bias": False,
    "proj_bias": True,
    "mlp_bias": True,
    "layer_norm_eps": NORM_EPS,
    "rope_theta": 100.0,
}


def timm_rows(config: Config) -> Sequence[Row]:
    """timm's names."""
    block = "blocks.{}"
    return [
        Row("reg_token", "registers"),
        Row((f"{block}.attn.q_bias", f"{block}.attn.v_bias"), f"{block}.attention.qkv.qv_bias", TWO),
        Row(f"{block}.gamma_1", f"{block}.scale1.gamma"),
        Row(f"{block}.gamma_2", f"{block}.scale2.gamma"),
        Row(f"{block}.mlp.fc1_g", f"{block}.mlp.gate"),
        Row(f"{block}.mlp.fc1_x", f"{block}.mlp.up"),
        Row(f"{block}.mlp.fc2", f"{block}.mlp.down"),
        *_shared_by_timm_and_paper(),
    ]


def paper_rows(config: Config) -> Sequence[Row]:
    """The authors' names."""
    block = "blocks.{}"
    return [
        Row("storage_tokens", "registers"),
        Row(f"{block}.attn.qkv.bias", f"{block}.attention.qkv.qv_bias", MASKED),
        Row(f"{block}.ls1", f"{block}.scale1"),
        Row(f"{block}.ls2", f"{block}.scale2"),
        Row(f"{block}.mlp.w1", f"{block}.mlp.gate"),
        Row(f"{block}.mlp.w2", f"{block}.mlp.up"),
        Row(f"{block}.mlp.w3", f"{block}.mlp.down"),
        *_shared_by_timm_and_paper(),
    ]


def _shared_by_timm_and_paper() -> list[Row]:
    return [
        Row("cls_token", "class_token"),
        Row("patch_embed.proj", "patch_embedding.proj"),
        Row("blocks.{}.norm1", "blocks.{}.norm1"),
        Row("blocks.{}.attn", "blocks.{}.attention"),
        Row("blocks.{}.norm2", "blocks.{}.norm2"),
        Row("blocks.{}.mlp", "blocks.{}.mlp"),
        Row("norm", "norm"),
        Row("head", "head.linear"),
    ]


def transformers_rows(config: Config) -> Sequence[Row]:
    """The names in files."""
    return _transformers_rows(config, "layer.{}")


def transformers_5_rows(config: Config) -> Sequence[Row]:
    """The names that version 5 uses in memory."""
    return _transformers_rows(config, "model.layer.{}")


def _transformers_rows(config: Config, layer: str) -> list[Row]:
    block = "blocks.{}"
    weights = tuple(f"{layer}.attention.{part}_proj.weight" for part in "qkv")
    biases = tuple(f"{layer}.attention.{part}_proj.bias" for part in "qv")
    mlp = {"gate": "gate", "up": "up", "down": "down"} if config.gated else {"fc1": "up", "fc2": "down"}
    return [
        Row("embeddings.cls_token", "class_token"),
        Row("embeddings.register_tokens", "registers"),
        Row("embeddings.patch_embeddings", "patch_embedding.proj"),
        Row(f"{layer}.norm1", f"{block}.norm1"),
        Row(weights, f"{block}.attention.qkv.weight", STACKED),
        Row(biases, f"{block}.attention.qkv.qv_bias", TWO),
        Row(f"{layer}.attention.o_proj", f"{block}.attention.proj"),
        Row(f"{layer}.layer_scale1.lambda1", f"{block}.scale1.gamma"),
        Row(f"{layer}.norm2", f"{block}.norm2"),
        *(Row(f"{layer}.mlp.{theirs}_proj", f"{block}.mlp.{ours}") for ours, theirs in mlp.items()),
        Row(f"{layer}.layer_scale2.lambda1", f"{block}.scale2.gamma"),
        Row("norm", "norm"),
        Row("classifier", "head.linear"),  # of which Transformers has no class
    ]


def described(config: Config) -> Described:
    """The published size of this shape and what differs from it, or the family with everything."""
    return nearest_size("dinov3", config, SIZES, lambda of: (of.width, of.depth, of.gated))


def read_timm(config: Mapping[str, Any]) -> Described | None:
    """A DINOv3 of timm; raises `CheckpointError` for one with a part that ours does not have."""
    name, bias = TIMM_SIZES.get(config.get("architecture", ""), (None, False))
    if name is None:
        return None
    arguments = {"global_pool": config.get("global_pool", "avg"), **config.get("model_args", {})}
    pool = arguments.pop("global_pool")
    multiple = arguments.pop("swiglu_align_to", 64 if name == "dinov3-7b16" else 8) or 1
    ratio = arguments.pop("mlp_ratio", SIZES[name].mlp / SIZES[name].width)
    if pool not in TIMM_POOLS:
        raise CheckpointError(f"this DINOv3 of timm is pooled by '{pool}', ours by: {', '.join(TIMM_POOLS)}.")
    if other := sorted(arguments.keys() - TIMM_SHAPE.keys() - TIMM_HARMLESS):
        raise CheckpointError(f"this DINOv3 of timm was made with {', '.join(other)}, which ours does not have.")
    shape = {ours: arguments[theirs] for theirs, ours in TIMM_SHAPE.items() if theirs in arguments}
    stated = {**asdict(SIZES[name]), "qv_bias": bias, "pool": TIMM_POOLS[pool], **shape, **timm_input(config)}
    hidden = int(stated["width"] * ratio)
    stated["mlp"] = hidden + (-hidden % multiple if stated["gated"] else 0)
    return described(Config(**stated))


def write_timm(config: Config) -> dict[str, Any]:
    """``config.json`` for `timm.create_model`."""
    kinds = {(SIZES[name].width, SIZES[name].gated, bias): timm for timm, (name, bias) in TIMM_SIZES.items()}
    pool = next(theirs for theirs, ours in TIMM_POOLS.items() if ours == config.pool)
    return {
        "architecture": kinds.get((config.width, config.gated, config.qv_bias), "vit_base_patch16_dinov3"),
        "num_features": config.width,
        "global_pool": pool,
        "model_args": {
            "img_size": list(config.image_size),
            "in_chans": config.channels,
            **{theirs: getattr(config, ours) for theirs, ours in TIMM_SHAPE.items()},
            "mlp_ratio": timm_mlp_ratio(config.width, config.mlp),
            "swiglu_align_to": 1,  # other than 0, which is an MLP of other names
            "global_pool": pool,
        },
    }


def read_transformers(config: Mapping[str, Any]) -> Described | None:
    """A DINOv3 of Transformers; raises `CheckpointError` for one with a part that ours does not have."""
    if config.get("model_type") != "dinov3_vit":
        return None
    activation = "silu" if config.get("use_gated_mlp", False) else "gelu"
    for name, ours in {**TRANSFORMERS_FIXED, "hidden_act": activation}.items():
        if config.get(name, ours) != ours:
            raise CheckpointError(f"this DINOv3 of Transformers has the {name} {config[name]}; ours has always {ours}.")
    if config.get("query_bias", True) != config.get("value_bias", True):
        raise CheckpointError("this DINOv3 has biases on queries or on values alone; ours has them on both or neither.")
    stated = {ours: config.get(theirs, default) for theirs, (ours, default) in TRANSFORMERS_SHAPE.items()}
    return described(Config(**stated, **transformers_input(config)))


def write_transformers(config: Config) -> dict[str, Any]:
    """``config.json`` for Transformers. Raises `SettingError` for what its DINOv3 cannot be."""
    if config.pool != "class":
        raise SettingError(
            "Transformers' DINOv3 is pooled by its class token, this one by the mean; export it to timm."
        )
    height, width = config.image_size
    return {
        "model_type": "dinov3_vit",
        "architectures": ["DINOv3ViTModel"],
        **{theirs: getattr(config, ours) for theirs, (ours, _) in TRANSFORMERS_SHAPE.items()},
        **TRANSFORMERS_FIXED,
        "hidden_act": "silu" if config.gated else "gelu",
        "image_size": height if height == width else [height, width],
        "num_channels": config.channels,
    }


AUTHORS: Mapping[str, Any] = {**IMAGENET_CROP, "resize": "squash", "crop_fraction": 1.0, "interpolation": "bilinear"}
NOT_OURS = ("embeddings.mask_token", "embeddings.register_tokens")  # no registers are a tensor of theirs, too

LAYOUTS: dict[str, Layout] = {
    "timm": Layout(timm_rows, read=read_timm, write=write_timm, preprocess={**IMAGENET_CROP, "crop_fraction": 1.0}),
    "transformers": Layout(
        transformers_rows, ignored=NOT_OURS, preprocess=AUTHORS, read=read_transformers, write=write_transformers
    ),
    "transformers-5": Layout(transformers_5_rows, ignored=NOT_OURS, preprocess=AUTHORS, read=read_transformers),
    "paper": Layout(
        paper_rows,
        ignored=("mask_token", "rope_embed.periods", "blocks.{}.attn.qkv.bias_mask", "local_cls_norm"),
        preprocess=AUTHORS,
    ),
}
