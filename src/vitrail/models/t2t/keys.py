"""Whose names the weights of T2T-ViT come under: the authors' own (github.com/yitu-opensource/T2T-ViT)."""

from __future__ import annotations

from vitrail.models.layout import IMAGENET_CROP, Layout, Row
from vitrail.models.t2t.t2t import Config

BACKBONE = [
    Row("cls_token", "class_token"),
    Row("pos_embed", "positions"),
    Row("tokens_to_token.project", "tokens_to_token.project"),
    Row("blocks.{}.norm1", "blocks.{}.norm1"),
    Row("blocks.{}.attn", "blocks.{}.attention"),
    Row("blocks.{}.norm2", "blocks.{}.norm2"),
    Row("blocks.{}.mlp", "blocks.{}.mlp"),
    Row("norm", "norm"),
    Row("head", "head.linear"),
]
PERFORMER = [
    Row("tokens_to_token.attention{}.w", "tokens_to_token.attention{}.directions"),
    Row("tokens_to_token.attention{}.norm1", "tokens_to_token.attention{}.norm1"),
    Row("tokens_to_token.attention{}.kqv", "tokens_to_token.attention{}.kqv"),
    Row("tokens_to_token.attention{}.proj", "tokens_to_token.attention{}.proj"),
    Row("tokens_to_token.attention{}.norm2", "tokens_to_token.attention{}.norm2"),
    Row("tokens_to_token.attention{}.mlp.0", "tokens_to_token.attention{}.mlp.fc1"),
    Row("tokens_to_token.attention{}.mlp.2", "tokens_to_token.attention{}.mlp.fc2"),
]
TRANSFORMER = [
    Row("tokens_to_token.attention{}.norm1", "tokens_to_token.attention{}.norm1"),
    Row("tokens_to_token.attention{}.attn.qkv", "tokens_to_token.attention{}.qkv"),
    Row("tokens_to_token.attention{}.attn.proj", "tokens_to_token.attention{}.proj"),
    Row("tokens_to_token.attention{}.norm2", "tokens_to_token.attention{}.norm2"),
    Row("tokens_to_token.attention{}.mlp", "tokens_to_token.attention{}.mlp"),
]


def paper(config: Config) -> list[Row]:
    """The key table of the authors' files."""
    return BACKBONE + (PERFORMER if config.token_attention == "performer" else TRANSFORMER)


LAYOUTS = {
    "paper": Layout(paper, preprocess={**IMAGENET_CROP, "crop_fraction": 0.9}),
}
