"""RoPE-ViT's weights in other libraries: timm, and the authors' own files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vitrail.errors import CheckpointError
from vitrail.models.layout import IMAGENET_CROP, Described, Layout, Row, Turn, timm_input, timm_mlp_ratio
from vitrail.models.rope_vit.rope_vit import SIZES, Config

TIMM_SIZES = {
    "vit_small_patch16_rope_mixed_224": "rope-vit-s16",
    "vit_small_patch16_rope_mixed_ape_224": "rope-vit-s16-ape",
    "vit_small_patch16_rope_224": "rope-vit-s16-axial",
    "vit_small_patch16_rope_ape_224": "rope-vit-s16-axial-ape",
    "vit_base_patch16_rope_mixed_224": "rope-vit-b16",
    "vit_base_patch16_rope_mixed_ape_224": "rope-vit-b16-ape",
    "vit_base_patch16_rope_224": "rope-vit-b16-axial",
    "vit_base_patch16_rope_ape_224": "rope-vit-b16-axial-ape",
    "vit_large_patch16_rope_mixed_224": "rope-vit-l16",
    "vit_large_patch16_rope_mixed_ape_224": "rope-vit-l16-ape",
    "vit_large_patch16_rope_224": "rope-vit-l16-axial",
    "vit_large_patch16_rope_ape_224": "rope-vit-l16-axial-ape",
}
TIMM_SHAPE = {"embed_dim": "width", "depth": "depth", "num_heads": "heads", "patch_size": "patch_size"}
TIMM_HARMLESS = {  # what these say is said elsewhere, or matters in training only
    *("img_size", "in_chans", "num_classes", "mlp_ratio", "dynamic_img_size", "init_values", "head_init_scale"),
    *("drop_rate", "pos_drop_rate", "patch_drop_rate", "proj_drop_rate", "attn_drop_rate", "drop_path_rate"),
}


def timm_rows(config: Config) -> Sequence[Row]:
    """timm's names."""
    return [Row("rope.freqs", "frequencies"), *_rows()]


def paper_rows(config: Config) -> Sequence[Row]:
    """The authors' names; they keep the frequencies of all heads in one row."""
    flat = Turn(lambda x: x.unflatten(-1, (config.heads, -1)), lambda x: (x.flatten(-2),))
    return [Row("freqs", "frequencies", flat), *_rows()]


def _rows() -> list[Row]:
    return [
        Row("cls_token", "class_token"),
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
    ]


def read_timm(config: Mapping[str, Any]) -> Described | None:
    """A RoPE-ViT of timm; raises `CheckpointError` for one with a part that ours does not have."""
    name = TIMM_SIZES.get(config.get("architecture", ""))
    if name is None:
        return None
    arguments = {"global_pool": config.get("global_pool", "token"), **config.get("model_args", {})}
    if arguments.pop("global_pool") != "token":
        raise CheckpointError("this RoPE-ViT of timm is not pooled by its class token, as every RoPE-ViT of ours is.")
    if other := sorted(arguments.keys() - TIMM_SHAPE.keys() - TIMM_HARMLESS):
        raise CheckpointError(f"this RoPE-ViT of timm was made with {', '.join(other)}, which ours does not have.")
    shape = {ours: arguments[theirs] for theirs, ours in TIMM_SHAPE.items() if theirs in arguments}
    mlp = int(shape.get("width", SIZES[name].width) * arguments.get("mlp_ratio", 4))
    stated = {**shape, "mlp": mlp, **timm_input(config)}
    return Described(name, {field: value for field, value in stated.items() if value != getattr(SIZES[name], field)})


def write_timm(config: Config) -> dict[str, Any]:
    """``config.json`` for `timm.create_model`."""
    kinds = {
        name: size for name, size in SIZES.items() if (size.rotary, size.absolute) == (config.rotary, config.absolute)
    }
    same = {size.width: architecture for architecture, name in TIMM_SIZES.items() if (size := kinds.get(name))}
    return {
        "architecture": same.get(config.width, same[768]),
        "num_features": config.width,
        "global_pool": "token",
        "model_args": {
            "img_size": list(config.image_size),
            "in_chans": config.channels,
            **{theirs: getattr(config, ours) for theirs, ours in TIMM_SHAPE.items()},
            "mlp_ratio": timm_mlp_ratio(config.width, config.mlp),
        },
    }


LAYOUTS: dict[str, Layout] = {
    "timm": Layout(timm_rows, resampling="bicubic-antialias", read=read_timm, write=write_timm),
    "paper": Layout(paper_rows, ignored=("freqs_t_x", "freqs_t_y"), preprocess={**IMAGENET_CROP, "crop_fraction": 1.0}),
}
