"""The vision transformer: "An image is worth 16x16 words" (Dosovitskiy et al., ICLR 2021, arXiv:2010.11929).

An image becomes a row of patch tokens (`embed`), the tokens exchange what they know in a stack of blocks (`encode`),
and one vector speaks for the image (`features`). Later variants differ in a setting or two: Scaling vision transformers
(Zhai et al. 2022) pools by attention, ViT-22B (Dehghani et al. 2023) computes attention and MLP in parallel, registers
(Darcet et al. 2024) add spare tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from vitrail.errors import SettingError
from vitrail.nn.attention import Attention, init_attention
from vitrail.nn.backbone import Backbone
from vitrail.nn.drop import DropPath, drop_path_rates
from vitrail.nn.features import Features
from vitrail.nn.mlp import Mlp, init_mlp
from vitrail.nn.norm import LayerNorm, LayerScale
from vitrail.nn.patch import PatchEmbedding, patch_grid
from vitrail.nn.pool import AttentionPool
from vitrail.nn.position import sincos_2d
from vitrail.nn.rope import Rotation, rotary_2d
from vitrail.nn.stem import ConvStem


@dataclass(frozen=True)
class Config:
    """A vision transformer's shape.

    Attributes:
        width, depth, heads, mlp: token size D, number of blocks, attention heads, hidden units of the MLP.
        image_size: height and width in pixels; fixes the grid of learned positions only.
        patch_size: side of a patch in pixels.
        channels: 1 for grey images, 3 for RGB.
        stem: the paper's linear map of each patch, or a few small convolutions (after Xiao et al. 2021).
        position: learned 1-D positions (the paper's), fixed 2-D sine-cosine, or rotary on both axes.
        pool: the class token's vector, the mean of the patch tokens, or attention pooling (MAP).
        registers: spare tokens beside the patches (Darcet et al. 2024).
        dropout, drop_path: rates in training; drop-path grows linearly with depth.
        layer_scale: initial factor of each residual branch, None for no factors (Touvron et al. 2021).
        parallel: attention and MLP side by side on one normalised input (ViT-22B).
        qk_norm: normalised queries and keys (ViT-22B).
        qkv_bias, norm_bias: whether those biases exist (not in ViT-22B).
        norm_eps: epsilon of every LayerNorm.
    """

    width: int
    depth: int
    heads: int
    mlp: int
    image_size: tuple[int, int] = (224, 224)
    patch_size: int = 16
    channels: int = 3
    stem: Literal["patch", "conv"] = "patch"
    position: Literal["learned", "sincos", "rotary"] = "learned"
    pool: Literal["class", "mean", "map"] = "class"
    registers: int = 0
    dropout: float = 0.0
    drop_path: float = 0.0
    layer_scale: float | None = None
    parallel: bool = False
    qk_norm: bool = False
    qkv_bias: bool = True
    norm_bias: bool = True
    norm_eps: float = 1e-6


def _size(width: int, depth: int, heads: int, mlp: int, patch_size: int) -> Config:
    return Config(width, depth, heads, mlp, patch_size=patch_size)


SIZES: dict[str, Config] = {
    # Ours, for images of 8 to 64 pixels and a laptop; they have no published counterpart.
    "vit-nano": Config(
        96, 4, 3, 192, image_size=(8, 8), patch_size=2, channels=1, stem="conv", position="sincos", pool="mean"
    ),
    "vit-micro": Config(128, 6, 4, 256, image_size=(32, 32), patch_size=4, stem="conv", position="sincos", pool="mean"),
    # Ti and S: Steiner et al. 2022, How to train your ViT?, table 2 (geometry of DeiT, Touvron et al. 2021).
    "vit-ti16": _size(192, 12, 3, 768, 16),
    "vit-s32": _size(384, 12, 6, 1536, 32),
    "vit-s16": _size(384, 12, 6, 1536, 16),
    "vit-s8": _size(384, 12, 6, 1536, 8),
    # B, L, H: Dosovitskiy et al. 2021, table 1.
    "vit-b32": _size(768, 12, 12, 3072, 32),
    "vit-b16": _size(768, 12, 12, 3072, 16),
    "vit-b8": _size(768, 12, 12, 3072, 8),
    "vit-l32": _size(1024, 24, 16, 4096, 32),
    "vit-l16": _size(1024, 24, 16, 4096, 16),
    "vit-h14": _size(1280, 32, 16, 5120, 14),
    # g and G: Zhai et al. 2022, table 2, here "giant" and "gigantic" since file names may not tell g from G.
    "vit-giant14": _size(1408, 40, 16, 6144, 14),
    "vit-gigantic14": _size(1664, 48, 16, 8192, 14),
    # e: Chen et al. 2022, PaLI, table 1.
    "vit-e14": Config(1792, 56, 16, 15360, patch_size=14, pool="map"),
    # 22B: Dehghani et al. 2023, table 1 and section 2.
    "vit-22b14": Config(
        6144, 48, 48, 24576, patch_size=14, pool="map", parallel=True, qk_norm=True, qkv_bias=False, norm_bias=False
    ),
}


class Block(nn.Module):
    """Pre-norm transformer block (eq. 2 and 3): tokens plus attention, plus MLP; or plus both at once (ViT-22B)."""

    def __init__(self, config: Config, drop_path: float) -> None:
        super().__init__()
        width = config.width
        self.norm1 = LayerNorm(width, eps=config.norm_eps, bias=config.norm_bias)
        self.attention = Attention(width, config.heads, qkv_bias=config.qkv_bias, qk_norm=config.qk_norm)
        self.norm2 = nn.Identity() if config.parallel else LayerNorm(width, eps=config.norm_eps, bias=config.norm_bias)
        self.mlp = Mlp(width, config.mlp, dropout=config.dropout)
        self.scale1 = nn.Identity() if config.layer_scale is None else LayerScale(width, config.layer_scale)
        self.scale2 = nn.Identity() if config.layer_scale is None else LayerScale(width, config.layer_scale)
        self.drop = nn.Dropout(config.dropout)
        self.drop_path = DropPath(drop_path)
        self.parallel = config.parallel
        init_attention(self.attention)
        init_mlp(self.mlp)

    def forward(self, x: Tensor, rotation: Rotation | None = None) -> Tensor:
        if self.parallel:
            y = self.norm1(x)
            both = self.scale1(self.drop(self.attention(y, rotation))) + self.scale2(self.mlp(y))
            return x + self.drop_path(both)
        x = x + self.drop_path(self.scale1(self.drop(self.attention(self.norm1(x), rotation))))
        return x + self.drop_path(self.scale2(self.mlp(self.norm2(x))))


class ViT(Backbone):
    """Images ``(B, C, H, W)`` float, normalised, to :class:`Features` with one map at the resolution of the patches.

    Raises :class:`SettingError` for a shape that cannot be, such as a width that the heads do not divide.
    """

    config: Config

    def __init__(self, config: Config) -> None:
        super().__init__()
        if config.width % config.heads:
            raise SettingError(f"the width {config.width} is not divisible by {config.heads} heads.")
        self.config = config
        self.grid = patch_grid(config.image_size, config.patch_size)
        width = config.width
        embedding = ConvStem if config.stem == "conv" else PatchEmbedding
        self.patch_embedding = embedding(config.channels, width, config.patch_size)
        self.class_token = nn.Parameter(torch.zeros(1, 1, width)) if config.pool == "class" else None
        self.registers = nn.Parameter(torch.empty(1, config.registers, width)) if config.registers else None
        positions = self.grid[0] * self.grid[1] + (config.pool == "class")
        self.positions = nn.Parameter(torch.empty(1, positions, width)) if config.position == "learned" else None
        self.drop = nn.Dropout(config.dropout)
        rates = drop_path_rates(config.drop_path, config.depth)
        self.blocks = nn.ModuleList(Block(config, rate) for rate in rates)
        self.norm = LayerNorm(width, eps=config.norm_eps, bias=config.norm_bias)
        self.attention_pool = (
            AttentionPool(width, config.heads, config.mlp, eps=config.norm_eps) if config.pool == "map" else None
        )
        for tokens in (self.registers, self.positions):
            if tokens is not None:
                nn.init.normal_(tokens, std=0.02)

    @property
    def prefix(self) -> int:
        """Number of tokens before the patches: class token, then registers."""
        return (self.class_token is not None) + self.config.registers

    def forward(self, images: Tensor) -> Features:
        tokens, grid = self.embed(images)
        return self.features(self.encode(tokens, grid), grid)

    def embed(self, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Images to tokens ``(B, P + h · w, D)`` with their positions, and the grid ``(h, w)``  (eq. 1)."""
        maps = self.patch_embedding(images)
        grid = (maps.shape[-2], maps.shape[-1])
        x = maps.flatten(2).transpose(1, 2)
        if self.class_token is not None:
            x = torch.cat([self.class_token.expand(len(x), -1, -1), x], dim=1)
        x = self._add_positions(x, grid)
        if self.registers is not None:  # they belong to no place, so they come after the positions
            cut = int(self.class_token is not None)
            x = torch.cat([x[:, :cut], self.registers.expand(len(x), -1, -1), x[:, cut:]], dim=1)
        return self.drop(x), grid

    def encode(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """Tokens to tokens through all blocks and the final norm (eq. 2 to 4)."""
        rotation = None
        if self.config.position == "rotary":
            rotation = rotary_2d(grid, self.config.width // self.config.heads, device=tokens.device)
        for block in self.blocks:
            tokens = block(tokens, rotation)
        return self.norm(tokens)

    def features(self, tokens: Tensor, grid: tuple[int, int]) -> Features:
        """Encoded tokens to what a head reads: pooled vector and feature map."""
        patches = tokens[:, self.prefix :]
        if self.attention_pool is not None:
            pooled = self.attention_pool(tokens)
        else:
            pooled = tokens[:, 0] if self.config.pool == "class" else patches.mean(dim=1)
        feature_map = patches.transpose(1, 2).unflatten(2, grid)
        return Features(tokens, self.prefix, grid, pooled, (feature_map,))

    def _add_positions(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        if self.positions is not None:
            if grid != self.grid:
                raise SettingError(
                    "this model's learned positions are for {}x{} patches, the image has {}x{}; "
                    "give images of {}x{} pixels.".format(*self.grid, *grid, *self.config.image_size)
                )
            return x + self.positions
        if self.config.position == "sincos":
            fixed = sincos_2d(grid, self.config.width).to(x)
            if self.class_token is not None:
                fixed = torch.cat([fixed.new_zeros(1, self.config.width), fixed])
            return x + fixed
        return x

    @property
    def width(self) -> int:
        """D, the size of ``pooled``."""
        return self.config.width

    @property
    def depth(self) -> int:
        """Number of the last layer for layer-wise learning rates: blocks + 1."""
        return self.config.depth + 1

    def layer(self, parameter_name: str) -> int:
        """The layer a parameter belongs to: 0 for embeddings, i + 1 for block i, ``depth`` for what follows."""
        first, *rest = parameter_name.split(".")
        if first == "blocks":
            return int(rest[0]) + 1
        return self.depth if first in ("norm", "attention_pool") else 0
