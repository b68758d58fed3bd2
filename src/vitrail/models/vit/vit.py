"""The vision transformer: "An image is worth 16x16 words" (Dosovitskiy et al., ICLR 2021, arXiv:2010.11929).

An image becomes a row of patch tokens (`embed`), the tokens exchange what they know in a stack of blocks (`encode`),
and one vector speaks for the image (`features`). Later variants differ in a setting or two: Scaling vision transformers
(Zhai et al. 2022) pools by attention, ViT-22B (Dehghani et al. 2023) computes attention and MLP in parallel, registers
(Darcet et al. 2024) add spare tokens.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from vitrail.errors import SettingError
from vitrail.models.vit.hybrid import ResNetStem
from vitrail.nn.attention import Attention, init_attention
from vitrail.nn.drop import DropPath, drop_path_rates
from vitrail.nn.features import Features
from vitrail.nn.merging import NONE, Merging
from vitrail.nn.mlp import Activation, Mlp, init_mlp
from vitrail.nn.norm import LayerNorm, LayerScale
from vitrail.nn.patch import PatchEmbedding, patch_grid, resample_kernel
from vitrail.nn.patch_transformer import PatchTransformer
from vitrail.nn.pool import AttentionPool
from vitrail.nn.position import Resampling, resample_positions, sincos_2d
from vitrail.nn.rope import Rotation, rotary_2d
from vitrail.nn.segments import Segments
from vitrail.nn.stem import ConvStem


@dataclass(frozen=True)
class Config:
    """A vision transformer's shape.

    Attributes:
        width, depth, heads, mlp: token size D, number of blocks, attention heads, hidden units of the MLP.
        image_size: height and width in pixels; fixes the grid of learned positions only.
        patch_size: side of a patch in pixels.
        channels: 1 for grey images, 3 for RGB.
        stem: the paper's linear map of each patch, its hybrids' ResNet before it, or convolutions (Xiao et al. 2021).
        resnet_stages: bottleneck blocks in each stage of a hybrid's ResNet.
        position: learned 1-D positions (the paper's), fixed 2-D sine-cosine, or rotary on both axes.
        pool: the class token's vector, the mean of the patches, both in a row (DINOv2), or attention pooling (MAP).
        class_token: whether there is a class token although it is not pooled (fine-tuned MAE).
        class_position: whether the class token has a learned position of its own, which only adds to it.
        registers: spare tokens beside the patches (Darcet et al. 2024).
        norm: the final LayerNorm is on the tokens, or on the pooled vector alone (fine-tuned MAE).
        representation: units of a tanh layer after pooling, None for no such layer (the paper's in pre-training, 3.1).
        activation: of the MLP: GELU, its approximation by tanh (Google's own), or ReLU.
        head_width: features of an attention head, None for width / heads.
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
    stem: Literal["patch", "resnet", "conv"] = "patch"
    resnet_stages: tuple[int, ...] = ()
    position: Literal["learned", "sincos", "rotary"] = "learned"
    pool: Literal["class", "mean", "class-mean", "map"] = "class"
    class_token: bool = False
    class_position: bool = True
    registers: int = 0
    norm: Literal["tokens", "pooled"] = "tokens"
    representation: int | None = None
    activation: Activation = "gelu"
    head_width: int | None = None
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
    # Hybrids: Steiner et al. 2022, table 2; stages as in vit_jax/configs/models.py. R+Ti/16's patches are 32 pixels.
    "vit-r-ti16": replace(_size(192, 12, 3, 768, 32), stem="resnet"),
    "vit-r26-s32": replace(_size(384, 12, 6, 1536, 32), stem="resnet", resnet_stages=(2, 2, 2, 2)),
    "vit-r50-b16": replace(_size(768, 12, 12, 3072, 16), stem="resnet", resnet_stages=(3, 4, 9)),
    "vit-r50-l32": replace(_size(1024, 24, 16, 4096, 32), stem="resnet", resnet_stages=(3, 4, 6, 3)),
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
        self.attention = Attention(
            width, config.heads, qkv_bias=config.qkv_bias, qk_norm=config.qk_norm, head_width=config.head_width
        )
        self.norm2 = nn.Identity() if config.parallel else LayerNorm(width, eps=config.norm_eps, bias=config.norm_bias)
        self.mlp = Mlp(width, config.mlp, activation=config.activation, dropout=config.dropout)
        self.scale1 = nn.Identity() if config.layer_scale is None else LayerScale(width, config.layer_scale)
        self.scale2 = nn.Identity() if config.layer_scale is None else LayerScale(width, config.layer_scale)
        self.drop = nn.Dropout(config.dropout)
        self.drop_path = DropPath(drop_path)
        self.parallel = config.parallel
        init_attention(self.attention)
        init_mlp(self.mlp)

    def forward(
        self,
        x: Tensor,
        rotation: Rotation | None = None,
        *,
        segments: Segments | None = None,
        merging: Merging = NONE,
    ) -> Tensor:
        y = self.norm1(x)
        attended = self.scale1(self.drop(merging.attend(self.attention, y, rotation, segments)))
        if self.parallel:
            return merging.merge(x + self.drop_path(attended + self.scale2(self.mlp(y))))
        x = merging.merge(x + self.drop_path(attended))
        return x + self.drop_path(self.scale2(self.mlp(self.norm2(x))))


def patch_embedding(config: Config) -> PatchEmbedding | ResNetStem | ConvStem:
    """From images ``(B, C, H, W)`` to patches ``(B, D, h, w)``."""
    if config.stem == "resnet":
        return ResNetStem(config.channels, config.width, config.patch_size, config.resnet_stages)
    stem = ConvStem if config.stem == "conv" else PatchEmbedding
    return stem(config.channels, config.width, config.patch_size)


class ViT(PatchTransformer):
    """Images ``(B, C, H, W)`` float, normalised, to :class:`Features` with one map at the resolution of the patches.

    Raises :class:`SettingError` for a shape that cannot be, such as a width that the heads do not divide.
    """

    config: Config
    behind = ("norm", "attention_pool", "representation")

    def __init__(self, config: Config) -> None:
        super().__init__()
        if config.width % config.heads and config.head_width is None:
            raise SettingError(f"the width {config.width} is not divisible by {config.heads} heads.")
        self.config = config
        self.grid = patch_grid(config.image_size, config.patch_size)
        width = config.width
        self.patch_embedding = patch_embedding(config)
        self.input_kernel = "patch_embedding." + next(iter(self.patch_embedding.state_dict()))
        self.class_tokens = int(config.pool in ("class", "class-mean"))
        class_token = config.class_token or config.pool in ("class", "class-mean")
        self.class_token = nn.Parameter(torch.zeros(1, 1, width)) if class_token else None
        self.registers = nn.Parameter(torch.empty(1, config.registers, width)) if config.registers else None
        positions = self.grid[0] * self.grid[1] + (class_token and config.class_position)
        self.positions = nn.Parameter(torch.empty(1, positions, width)) if config.position == "learned" else None
        self.drop = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config, rate) for rate in drop_path_rates(config.drop_path, config.depth))
        pooled = 2 * width if config.pool == "class-mean" else width
        self.norm = LayerNorm(pooled if config.norm == "pooled" else width, eps=config.norm_eps, bias=config.norm_bias)
        self.attention_pool = (
            AttentionPool(width, config.heads, config.mlp, activation=config.activation, eps=config.norm_eps)
            if config.pool == "map"
            else None
        )
        self.representation = None if config.representation is None else nn.Linear(pooled, config.representation)
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
        patches = maps.flatten(2).transpose(1, 2)
        positions = self._positions(patches, grid)
        if positions is not None:
            patches = patches + positions[:, -patches.shape[1] :]
        prefix = []
        if self.class_token is not None:
            own = self.positions if self.config.class_position else None
            prefix.append(self.class_token if own is None else self.class_token + own[:, :1])
        if self.registers is not None:  # they belong to no place, so they have no positions
            prefix.append(self.registers)
        tokens = torch.cat([*(x.expand(patches.shape[0], -1, -1) for x in prefix), patches], dim=1)
        return self.drop(tokens), grid

    def encode(self, tokens: Tensor, grid: tuple[int, int], seen: Tensor | None = None) -> Tensor:
        """Tokens to tokens through all blocks and the final norm (eq. 2 to 4).

        Where the tokens are not of all patches of the grid, ``seen (B, n)`` has the numbers of those that they are of.
        """
        (rotation,) = self.rotations(grid)
        if rotation is not None and seen is not None:
            rotation = rotation.of(seen)
        merging = Merging(self.merge, self.prefix)
        for block in self.blocks:
            tokens = block(tokens, rotation, merging=merging)
        return merging.restore(self.normed(tokens))

    def rotations(self, grid: tuple[int, int]) -> list[Rotation | None]:
        """How all blocks turn the queries and keys of an ``(h, w)`` grid of patches, where positions are rotary."""
        if self.config.position != "rotary":
            return [None]
        head_width = self.config.head_width or self.config.width // self.config.heads
        return [rotary_2d(grid, head_width, device=self.norm.weight.device)]

    def normed(self, tokens: Tensor) -> Tensor:
        """The tokens through the final norm, unless that is on the pooled vector."""
        return self.norm(tokens) if self.config.norm == "tokens" else tokens

    def features(self, tokens: Tensor, grid: tuple[int, int]) -> Features:
        """Encoded tokens to what a head reads: pooled vector and feature map."""
        patches = tokens[:, self.prefix :]
        pooled = self._pooled(tokens, patches)
        if self.config.norm == "pooled":
            pooled = self.norm(pooled)
        if self.representation is not None:
            pooled = self.representation(pooled).tanh()
        feature_map = patches.transpose(1, 2).unflatten(2, grid)
        return Features(tokens, self.prefix, grid, pooled, (feature_map,))

    def _pooled(self, tokens: Tensor, patches: Tensor) -> Tensor:
        if self.attention_pool is not None:
            return self.attention_pool(patches)
        if self.config.pool == "class":
            return tokens[:, 0]
        mean = patches.mean(dim=1)
        return torch.cat([tokens[:, 0], mean], dim=1) if self.config.pool == "class-mean" else mean

    def adapted(self, weights: dict[str, Tensor], before: Config, resampling: Resampling) -> dict[str, Tensor]:
        """Weights of a ViT of another image size, patch size or number of channels, resampled to this one's.

        Raises :class:`SettingError` for another patch size of a convolutional stem, whose layers depend on it.
        """
        weights = super().adapted(weights, before, resampling)
        if self.config.patch_size != before.patch_size:
            if self.config.stem == "conv":
                raise SettingError(f"a convolutional stem keeps its patch size, which is {before.patch_size}.")
            kernel, size = "patch_embedding.proj.weight", self.patch_embedding.proj.kernel_size[0]
            weights |= {kernel: resample_kernel(weights[kernel], size)}
        if self.positions is not None:
            grid = patch_grid(before.image_size, before.patch_size)
            weights |= {"positions": resample_positions(weights["positions"], grid, self.grid, resampling)}
        return weights

    def _positions(self, patches: Tensor, grid: tuple[int, int]) -> Tensor | None:
        """What is added to the tokens, ``(1, N or 1 + N, D)``, the class token's first; None with rotary positions."""
        if self.positions is not None:
            return self.learned_positions(grid)
        fixed = self.config.position == "sincos"
        return sincos_2d(grid, self.config.width)[None].to(patches) if fixed else None

    @property
    def width(self) -> int:
        """The size of ``pooled``: D, or 2 D if two vectors are pooled, or that of the representation layer."""
        if self.config.representation is not None:
            return self.config.representation
        return self.config.width * (2 if self.config.pool == "class-mean" else 1)
