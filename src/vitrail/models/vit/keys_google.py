"""ViT in Google's ``.npz`` files: those of vit_jax and AugReg, and those of big_vision.

Flax stores a dense layer as (inputs, outputs), a convolution as (rows, columns, inputs, outputs), and an attention's
matrices with an axis for the heads.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from vitrail.models.layout import KERNEL, TRANSPOSED, Row, Turn
from vitrail.models.vit.vit import Config

FLAT = Turn(lambda x: x.flatten(), lambda x: (x,))  # a GroupNorm's values, which old files have as (1, 1, 1, C)
WITH_CLASS = Turn(lambda x: torch.cat([torch.zeros_like(x[:, :1]), x], dim=1), lambda x: (x[:, 1:],))

# Second norm, attention and MLP of a block, as Flax called them before 2021, and since.
COUNTED_TOGETHER = ("LayerNorm_2", "MultiHeadDotProductAttention_1", "MlpBlock_3")
COUNTED_BY_KIND = ("LayerNorm_1", "MultiHeadDotProductAttention_0", "MlpBlock_0")

PREPROCESS: Mapping[str, Any] = {  # the whole picture squashed, its values between -1 and 1
    "resize": "squash",
    "interpolation": "bilinear",
    "mean": (0.5, 0.5, 0.5),
    "std": (0.5, 0.5, 0.5),
}


def vit_jax_rows(config: Config) -> Sequence[Row]:
    """The names of the published files, whose numbers count all layers of a block."""
    return [
        Row("Transformer/posembed_input/pos_embedding", "positions"),
        *_block_rows(config, *COUNTED_TOGETHER),
        *_rows(config),
        *_hybrid_rows(),
    ]


def big_vision_rows(config: Config) -> Sequence[Row]:
    """The names of big_vision, where the class token has no position: ours is the zeros that this adds."""
    has_class = config.class_token or config.pool in ("class", "class-mean")
    pool = "MAPHead_0"
    return [
        Row("pos_embedding", "positions", WITH_CLASS) if has_class and config.class_position else _same_positions(),
        *_block_rows(config, *COUNTED_BY_KIND),
        *_rows(config),
        Row(f"{pool}/probe", "attention_pool.probe"),
        *_projections(f"{pool}/MultiHeadDotProductAttention_0", ("query",), "attention_pool.q", config.heads),
        *_projections(f"{pool}/MultiHeadDotProductAttention_0", ("key", "value"), "attention_pool.kv", config.heads),
        *_output(f"{pool}/MultiHeadDotProductAttention_0", "attention_pool.proj", config.heads),
        *_norm(f"{pool}/LayerNorm_0", "attention_pool.norm"),
        *_dense(f"{pool}/MlpBlock_0/Dense_0", "attention_pool.mlp.fc1"),
        *_dense(f"{pool}/MlpBlock_0/Dense_1", "attention_pool.mlp.fc2"),
    ]


def prepare_vit_jax(tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """As the published files: what today's code writes has the numbers of today's Flax."""
    before = dict(zip(COUNTED_BY_KIND, COUNTED_TOGETHER, strict=True))
    return {"/".join(before.get(part, part) for part in name.split("/")): x for name, x in tensors.items()}


def prepare_big_vision(tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """As the newest files: one tensor a block, positions outside the encoder, none of them the class token's.

    Files of before 2022 have positions inside; then the class token had one, which only adds to the token itself.
    """
    inside, outside, stacked = "Transformer/pos_embedding", "pos_embedding", "Transformer/encoderblock/"
    given = {outside if name == inside else name: x for name, x in tensors.items() if not name.startswith(stacked)}
    for name, x in tensors.items():
        if name.startswith(stacked):
            rest = name.removeprefix(stacked)
            given |= {f"Transformer/encoderblock_{i}/{rest}": block for i, block in enumerate(x)}
    if "cls" in given and outside in given and math.isqrt(rows := given[outside].shape[1]) ** 2 == rows - 1:
        first, patches = given[outside].split([1, rows - 1], dim=1)
        given |= {"cls": given["cls"] + first, outside: patches}
    return given


def _rows(config: Config) -> list[Row]:
    """What is the same in all: everything outside the blocks."""
    return [
        Row("cls", "class_token"),
        Row("embedding/kernel", "patch_embedding.proj.weight", KERNEL),
        Row("embedding/bias", "patch_embedding.proj.bias"),
        *_norm("Transformer/encoder_norm", "norm"),
        *_dense("pre_logits", "representation"),
        *_dense("head", "head.linear"),
    ]


def _block_rows(config: Config, second_norm: str, attention: str, mlp: str) -> list[Row]:
    theirs, ours = "Transformer/encoderblock_{}", "blocks.{}"
    return [
        *_norm(f"{theirs}/LayerNorm_0", f"{ours}.norm1"),
        *_projections(f"{theirs}/{attention}", ("query", "key", "value"), f"{ours}.attention.qkv", config.heads),
        *_output(f"{theirs}/{attention}", f"{ours}.attention.proj", config.heads),
        *_norm(f"{theirs}/{second_norm}", f"{ours}.norm2"),
        *_dense(f"{theirs}/{mlp}/Dense_0", f"{ours}.mlp.fc1"),
        *_dense(f"{theirs}/{mlp}/Dense_1", f"{ours}.mlp.fc2"),
    ]


def _hybrid_rows() -> list[Row]:
    unit, block = "block{+1}/unit{+1}", "patch_embedding.stages.{}.{}"
    pairs = [("conv_root", "gn_root", "patch_embedding.root")]
    pairs += [(f"{unit}/conv{n}", f"{unit}/gn{n}", f"{block}.conv{n}") for n in (1, 2, 3)]
    pairs += [(f"{unit}/conv_proj", f"{unit}/gn_proj", f"{block}.shortcut")]
    rows = []
    for conv, norm, ours in pairs:
        rows += [Row(f"{conv}/kernel", f"{ours}.conv.weight", KERNEL), *_norm(norm, f"{ours}.norm", FLAT)]
    return rows


def _same_positions() -> Row:
    return Row("pos_embedding", "positions")


def _norm(theirs: str, ours: str, turn: Turn = FLAT) -> list[Row]:
    return [Row(f"{theirs}/scale", f"{ours}.weight", turn), Row(f"{theirs}/bias", f"{ours}.bias", turn)]


def _dense(theirs: str, ours: str) -> list[Row]:
    return [Row(f"{theirs}/kernel", f"{ours}.weight", TRANSPOSED), Row(f"{theirs}/bias", f"{ours}.bias")]


def _projections(theirs: str, parts: tuple[str, ...], ours: str, heads: int) -> list[Row]:
    """Queries, keys and values: (width, heads, d) each in theirs, all rows of one matrix in ours."""
    matrix = Turn(
        lambda *kernels: torch.cat([kernel.flatten(1).T for kernel in kernels]),
        lambda x: tuple(part.T.unflatten(1, (heads, -1)) for part in x.chunk(len(parts))),
    )
    vector = Turn(
        lambda *biases: torch.cat([bias.flatten() for bias in biases]),
        lambda x: tuple(part.unflatten(0, (heads, -1)) for part in x.chunk(len(parts))),
    )
    names = [f"{theirs}/{part}" for part in parts]
    return [
        Row(tuple(f"{name}/kernel" for name in names), f"{ours}.weight", matrix),
        Row(tuple(f"{name}/bias" for name in names), f"{ours}.bias", vector),
    ]


def _output(theirs: str, ours: str, heads: int) -> list[Row]:
    """The matrix after the heads: (heads, d, width) in theirs."""
    matrix = Turn(lambda kernel: kernel.flatten(0, 1).T, lambda x: (x.T.unflatten(0, (heads, -1)),))
    return [Row(f"{theirs}/out/kernel", f"{ours}.weight", matrix), Row(f"{theirs}/out/bias", f"{ours}.bias")]
