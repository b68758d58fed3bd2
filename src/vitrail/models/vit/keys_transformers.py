"""ViT in Hugging Face Transformers: ViT, the encoder of ViTMAE, DINOv2 with and without registers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vitrail.errors import CheckpointError, SettingError
from vitrail.models.layout import STACKED, Described, Row, transformers_input
from vitrail.models.vit.named import described
from vitrail.models.vit.vit import Config

SHAPE = {
    "hidden_size": "width",
    "num_hidden_layers": "depth",
    "num_attention_heads": "heads",
    "intermediate_size": "mlp",
    "patch_size": "patch_size",
    "qkv_bias": "qkv_bias",
    "layer_norm_eps": "norm_eps",
}
DEFAULTS = {  # of its ViTConfig and ViTMAEConfig, for what a file leaves out; DINOv2's differ in the last two
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_act": "gelu",
    "qkv_bias": True,
    "patch_size": 16,
    "layer_norm_eps": 1e-12,
}
DINOV2_DEFAULTS = {**DEFAULTS, "patch_size": 14, "layer_norm_eps": 1e-6, "layerscale_value": 1.0, "mlp_ratio": 4}
ACTIVATIONS = {  # the first name of each is the one to write
    "gelu": "gelu",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_new": "gelu_tanh",
    "relu": "relu",
}


def vit_rows(config: Config) -> Sequence[Row]:
    """The names in files, of version 5, too."""
    return [*_around_the_blocks(), *block_rows("encoder.layer.{}", "blocks.{}")]


def vit_5_rows(config: Config) -> Sequence[Row]:
    """The names that version 5 uses in memory."""
    return [*_around_the_blocks(), *block_5_rows("layers.{}", "blocks.{}")]


def block_rows(layer: str, block: str) -> list[Row]:
    """A block by its name in files and in ours."""
    return [
        *_qkv(f"{layer}.attention.attention", ("query", "key", "value"), block),
        Row(f"{layer}.attention.output.dense", f"{block}.attention.proj"),
        Row(f"{layer}.layernorm_before", f"{block}.norm1"),
        Row(f"{layer}.layernorm_after", f"{block}.norm2"),
        Row(f"{layer}.intermediate.dense", f"{block}.mlp.fc1"),
        Row(f"{layer}.output.dense", f"{block}.mlp.fc2"),
    ]


def block_5_rows(layer: str, block: str) -> list[Row]:
    """A block by its name in version 5's memory and in ours."""
    return [
        *_qkv(f"{layer}.attention", ("q_proj", "k_proj", "v_proj"), block),
        Row(f"{layer}.attention.o_proj", f"{block}.attention.proj"),
        Row(f"{layer}.layernorm_before", f"{block}.norm1"),
        Row(f"{layer}.layernorm_after", f"{block}.norm2"),
        Row(f"{layer}.mlp", f"{block}.mlp"),
    ]


def dinov2_rows(config: Config) -> Sequence[Row]:
    """The names in files, of version 5, too."""
    attention = "encoder.layer.{}.attention"
    return [
        *_qkv(f"{attention}.attention", ("query", "key", "value")),
        Row(f"{attention}.output.dense", "blocks.{}.attention.proj"),
        *_dinov2_besides_attention(),
    ]


def dinov2_5_rows(config: Config) -> Sequence[Row]:
    """The names that version 5 uses in memory."""
    attention = "encoder.layer.{}.attention"
    return [
        *_qkv(attention, ("q_proj", "k_proj", "v_proj")),
        Row(f"{attention}.o_proj", "blocks.{}.attention.proj"),
        *_dinov2_besides_attention(),
    ]


def read_vit(config: Mapping[str, Any]) -> Described | None:
    """A ViT, or the encoder of a ViTMAE. Raises `CheckpointError` for one that has what ours does not have."""
    if config.get("model_type") not in ("vit", "vit_mae"):
        return None
    return described(_config({**DEFAULTS, **config}))


def read_dinov2(config: Mapping[str, Any]) -> Described | None:
    """A DINOv2; its classifier reads class token and mean. `CheckpointError` for the giant, whose MLPs are gated."""
    if config.get("model_type") != "dinov2":
        return None
    return _read_dinov2(config)


def read_dinov2_with_registers(config: Mapping[str, Any]) -> Described | None:
    """A DINOv2 with registers; as `read_dinov2`."""
    if config.get("model_type") != "dinov2_with_registers":
        return None
    return _read_dinov2(config, registers=config.get("num_register_tokens", 4))


def write_vit(config: Config) -> dict[str, Any]:
    """``config.json`` for Transformers. Raises `SettingError` for what its ViT cannot be."""
    _refuse(
        "ViT",
        (config.pool != "class", f"pooling by {config.pool}"),
        (config.registers, "registers"),
        (config.layer_scale is not None, "LayerScale"),
        *_never(config),
    )
    return {"model_type": "vit", "architectures": ["ViTForImageClassification"], **_written(config)}


def write_dinov2(config: Config) -> dict[str, Any]:
    """``config.json`` for Transformers. Raises `SettingError` for what its DINOv2 cannot be."""
    _refuse("DINOv2", (config.registers, "registers"), *_never_dinov2(config))
    return {
        "model_type": "dinov2",
        "architectures": ["Dinov2ForImageClassification"],
        **_written_dinov2(config),
        "use_mask_token": False,
    }


def write_dinov2_with_registers(config: Config) -> dict[str, Any]:
    """``config.json`` for Transformers. Raises `SettingError` for what its DINOv2 with registers cannot be."""
    _refuse("DINOv2 with registers", (not config.registers, "form without registers"), *_never_dinov2(config))
    return {
        "model_type": "dinov2_with_registers",
        "architectures": ["Dinov2WithRegistersForImageClassification"],
        **_written_dinov2(config),
        "num_register_tokens": config.registers,
    }


def _around_the_blocks() -> list[Row]:
    return [
        Row("embeddings.cls_token", "class_token"),
        Row("embeddings.register_tokens", "registers"),
        Row("embeddings.position_embeddings", "positions"),
        Row("embeddings.patch_embeddings.projection", "patch_embedding.proj"),
        Row("layernorm", "norm"),
        Row("pooler.dense", "representation"),
        Row("classifier", "head.linear"),
    ]


def _qkv(attention: str, parts: tuple[str, ...], block: str = "blocks.{}") -> list[Row]:
    names = [f"{attention}.{part}" for part in parts]
    ours = f"{block}.attention.qkv"
    return [Row(tuple(f"{name}.{x}" for name in names), f"{ours}.{x}", STACKED) for x in ("weight", "bias")]


def _dinov2_besides_attention() -> list[Row]:
    layer, block = "encoder.layer.{}", "blocks.{}"
    return [
        *_around_the_blocks(),
        Row(f"{layer}.norm1", f"{block}.norm1"),
        Row(f"{layer}.layer_scale1.lambda1", f"{block}.scale1.gamma"),
        Row(f"{layer}.norm2", f"{block}.norm2"),
        Row(f"{layer}.mlp", f"{block}.mlp"),
        Row(f"{layer}.layer_scale2.lambda1", f"{block}.scale2.gamma"),
    ]


def _config(stated: Mapping[str, Any], **settings: Any) -> Config:
    activation = ACTIVATIONS.get(stated["hidden_act"])
    if activation is None:
        raise CheckpointError(f"this ViT has the activation {stated['hidden_act']}, which Vitrail's has not.")
    shape = {ours: stated[theirs] for theirs, ours in SHAPE.items()}
    return Config(**shape, **transformers_input(stated), activation=activation, **settings)  # type: ignore[arg-type]


def _read_dinov2(config: Mapping[str, Any], registers: int = 0) -> Described:
    stated = {**DINOV2_DEFAULTS, **config}
    if stated.get("use_swiglu_ffn"):
        raise CheckpointError("this DINOv2 has gated MLPs (SwiGLU), which Vitrail's ViT has not; take a smaller one.")
    stated["intermediate_size"] = stated["hidden_size"] * stated["mlp_ratio"]
    classifies = any("ForImageClassification" in name for name in stated.get("architectures") or ())
    pool = "class-mean" if classifies else "class"
    return described(_config(stated, pool=pool, layer_scale=stated["layerscale_value"], registers=registers))


def _never(config: Config) -> tuple[tuple[object, str], ...]:
    return (
        (config.stem != "patch", f"{config.stem} stem"),
        (config.position != "learned", f"{config.position} positions"),
        (not config.class_position, "class token without a position"),
        (config.norm != "tokens", "norm after the pooling"),
        (config.representation, "representation layer before its classifier"),
        (config.head_width, "setting for the width of a head"),
        (config.parallel or config.qk_norm or not config.norm_bias, "blocks as those of ViT-22B"),
    )


def _never_dinov2(config: Config) -> tuple[tuple[object, str], ...]:
    return (
        (config.pool != "class-mean", f"classifier on pooling by {config.pool}"),
        (config.layer_scale is None, "block without LayerScale"),
        (config.mlp % config.width, "MLP whose units are no multiple of the width"),
        (config.image_size[0] != config.image_size[1], "image that is not square"),
        *_never(config),
    )


def _refuse(kind: str, *reasons: tuple[object, str]) -> None:
    for true, what in reasons:
        if true:
            raise SettingError(f"Transformers' {kind} has no {what}, so this model cannot be written for it.")


def _written(config: Config) -> dict[str, Any]:
    height, width = config.image_size
    return {
        **{theirs: getattr(config, ours) for theirs, ours in SHAPE.items()},
        "hidden_act": next(name for name, ours in ACTIVATIONS.items() if ours == config.activation),
        "image_size": height if height == width else [height, width],
        "num_channels": config.channels,
    }


def _written_dinov2(config: Config) -> dict[str, Any]:
    written = {key: value for key, value in _written(config).items() if key != "intermediate_size"}
    return {**written, "mlp_ratio": config.mlp // config.width, "layerscale_value": config.layer_scale}
