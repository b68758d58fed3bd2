"""ViT's weights in other libraries: all their layouts, and the key tables of torchvision and vit-pytorch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from torch import Tensor

from vitrail.models.layout import IMAGENET_CROP, Layout, Row, Turn
from vitrail.models.vit.keys_google import (
    PREPROCESS,
    big_vision_rows,
    prepare_big_vision,
    prepare_vit_jax,
    vit_jax_rows,
)
from vitrail.models.vit.keys_timm import dino_rows, read_timm, timm_rows, write_timm
from vitrail.models.vit.keys_transformers import (
    dinov2_5_rows,
    dinov2_rows,
    read_dinov2,
    read_dinov2_with_registers,
    read_vit,
    vit_5_rows,
    vit_rows,
    write_dinov2,
    write_dinov2_with_registers,
    write_vit,
)
from vitrail.models.vit.vit import Config


def torchvision_rows(config: Config) -> Sequence[Row]:
    """torchvision's names, whose attention is PyTorch's own."""
    layer, block = "encoder.layers.encoder_layer_{}", "blocks.{}"
    return [
        Row("class_token", "class_token"),
        Row("encoder.pos_embedding", "positions"),
        Row("conv_proj", "patch_embedding.proj"),
        Row(f"{layer}.ln_1", f"{block}.norm1"),
        Row(f"{layer}.self_attention.in_proj_weight", f"{block}.attention.qkv.weight"),
        Row(f"{layer}.self_attention.in_proj_bias", f"{block}.attention.qkv.bias"),
        Row(f"{layer}.self_attention.out_proj", f"{block}.attention.proj"),
        Row(f"{layer}.ln_2", f"{block}.norm2"),
        Row(f"{layer}.mlp.0", f"{block}.mlp.fc1"),
        Row(f"{layer}.mlp.3", f"{block}.mlp.fc2"),
        Row("encoder.ln", "norm"),
        Row("heads.head", "head.linear"),
    ]


def prepare_torchvision(tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Its published files are older than its code and call the MLP's layers by other names."""
    return {name.replace("mlp.linear_1", "mlp.0").replace("mlp.linear_2", "mlp.3"): x for name, x in tensors.items()}


def vit_pytorch_rows(config: Config) -> Sequence[Row]:
    """The names of vit-pytorch before 2023, which cut patches as rows of pixels with their channels."""
    side, layer, block = config.patch_size, "transformer.layers.{}", "blocks.{}"
    pixels = Turn(
        lambda x: x.unflatten(1, (side, side, -1)).permute(0, 3, 1, 2),
        lambda x: (x.permute(0, 2, 3, 1).flatten(1),),
    )
    return [
        Row("cls_token", "class_token"),
        Row("pos_embedding", "positions"),
        Row("to_patch_embedding.1.weight", "patch_embedding.proj.weight", pixels),
        Row("to_patch_embedding.1.bias", "patch_embedding.proj.bias"),
        Row(f"{layer}.0.norm", f"{block}.norm1"),
        Row(f"{layer}.0.fn.to_qkv", f"{block}.attention.qkv"),
        Row(f"{layer}.0.fn.to_out.0", f"{block}.attention.proj"),
        Row(f"{layer}.1.norm", f"{block}.norm2"),
        Row(f"{layer}.1.fn.net.0", f"{block}.mlp.fc1"),
        Row(f"{layer}.1.fn.net.3", f"{block}.mlp.fc2"),
        Row("mlp_head.0", "norm"),
        Row("mlp_head.1", "head.linear"),
    ]


DECODER = ("mask_token", "decoder_embed", "decoder_pos_embed", "decoder_blocks", "decoder_norm", "decoder_pred")
BESIDES = ("pooler", "decoder", "embeddings.mask_token")  # what Transformers' models have around the encoder

TRANSFORMERS = Layout(vit_rows, prefix="vit.", ignored=BESIDES, preprocess=PREPROCESS, read=read_vit, write=write_vit)
DINOV2 = Layout(dinov2_rows, prefix="dinov2.", ignored=BESIDES, read=read_dinov2, write=write_dinov2)
DINOV2_REGISTERS = Layout(
    dinov2_rows,
    prefix="dinov2_with_registers.",
    ignored=BESIDES,
    resampling="bicubic-antialias",
    read=read_dinov2_with_registers,
    write=write_dinov2_with_registers,
)

FLAX = {"activation": "gelu_tanh"}  # `flax.linen.gelu` is the approximation, where it is not told otherwise

LAYOUTS = {
    "timm": Layout(timm_rows, resampling="bicubic-antialias", read=read_timm, write=write_timm),
    "transformers": TRANSFORMERS,
    "transformers-5": replace(TRANSFORMERS, rows=vit_5_rows, write=None),
    "transformers-dinov2": DINOV2,
    "transformers-5-dinov2": replace(DINOV2, rows=dinov2_5_rows, write=None),
    "transformers-dinov2-registers": DINOV2_REGISTERS,
    "transformers-5-dinov2-registers": replace(DINOV2_REGISTERS, rows=dinov2_5_rows, write=None),
    "torchvision": Layout(
        torchvision_rows, prepare=prepare_torchvision, preprocess={**IMAGENET_CROP, "interpolation": "bilinear"}
    ),
    "google": Layout(vit_jax_rows, prepare=prepare_vit_jax, resampling="bilinear", implies=FLAX, preprocess=PREPROCESS),
    "big_vision": Layout(
        big_vision_rows, prepare=prepare_big_vision, resampling="bilinear", implies=FLAX, preprocess=PREPROCESS
    ),
    "paper": Layout(timm_rows, ignored=DECODER),  # MAE
    "dino": Layout(dino_rows, ignored=DECODER, resampling="bicubic-offset"),  # DINO, DINOv2
    "dino-registers": Layout(dino_rows, ignored=DECODER, resampling="bicubic-antialias"),
    "vit-pytorch": Layout(
        vit_pytorch_rows,
        implies={"norm_eps": 1e-5, "qkv_bias": False},
        preprocess={"resize": "squash", "mean": (0.0,) * 3, "std": (1.0,) * 3},
    ),
}
