"""DINOv3's vision transformers: Siméoni et al., "DINOv3", 2025, arXiv:2508.10104.

A plain vision transformer with rotary positions by the centres of the patches, four registers, and LayerScale; some
sizes have a gated MLP. It was trained without labels and has no classifier of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitrail.errors import SettingError
from vitrail.nn.attention import Attention
from vitrail.nn.drop import DropPath
from vitrail.nn.features import Features
from vitrail.nn.merging import NONE, Merging
from vitrail.nn.mlp import Mlp
from vitrail.nn.norm import LayerNorm, LayerScale
from vitrail.nn.patch import PatchEmbedding, patch_grid, resample_kernel
from vitrail.nn.patch_transformer import PatchTransformer
from vitrail.nn.position import Resampling
from vitrail.nn.rope import Rotation, geometric_frequencies, rotary_2d
from vitrail.nn.segments import Segments

NORM_EPS = 1e-5
LAYER_SCALE = 1e-5  # initial factor of each residual branch


@dataclass(frozen=True)
class Config:
    """The shape of one of DINOv3's vision transformers.

    Attributes:
        width, depth, heads, mlp: token size D, number of blocks, attention heads, hidden units of the MLP.
        gated: whether the MLP is a SwiGLU (Shazeer 2020).
        qv_bias: whether queries and values have biases; keys have none.
        registers: spare tokens beside the patches (Darcet et al. 2024).
        pool: the class token's vector (the paper's), or the mean of the patch tokens (timm's default).
        image_size: height and width in pixels; any will do, it is no part of the weights.
        patch_size: side of a patch in pixels.
        channels: 1 for grey images, 3 for RGB.
        drop_path: rate in training, the same for every block, as in the authors' code.
    """

    width: int
    depth: int
    heads: int
    mlp: int
    gated: bool = False
    qv_bias: bool = True
    registers: int = 4
    pool: Literal["class", "mean"] = "class"
    image_size: tuple[int, int] = (224, 224)
    patch_size: int = 16
    channels: int = 3
    drop_path: float = 0.0


SIZES: dict[str, Config] = {  # the authors' code, dinov3/hub/backbones.py
    "dinov3-s16": Config(384, 12, 6, 1536),
    "dinov3-s16plus": Config(384, 12, 6, 1536, gated=True),
    "dinov3-b16": Config(768, 12, 12, 3072),
    "dinov3-l16": Config(1024, 24, 16, 4096),
    "dinov3-h16plus": Config(1280, 32, 20, 5120, gated=True),
    "dinov3-7b16": Config(4096, 40, 32, 8192, gated=True, qv_bias=False),
}


class QueryKeyValue(nn.Linear):
    """``(…, D)`` to queries, keys and values ``(…, 3 · D)``; queries and values have biases, keys have none."""

    def __init__(self, width: int) -> None:
        super().__init__(width, 3 * width, bias=False)
        self.qv_bias = nn.Parameter(torch.zeros(2, width))

    def forward(self, x: Tensor) -> Tensor:
        query, value = self.qv_bias
        return F.linear(x, self.weight, torch.cat([query, torch.zeros_like(query), value]))


class SwiGLU(nn.Module):
    """The gated MLP of Shazeer 2020 (arXiv:2002.05202): down(silu(gate(x)) · up(x)), ``(…, width)`` to itself."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.gate = nn.Linear(width, hidden)
        self.up = nn.Linear(width, hidden)
        self.down = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.silu(self.gate(x)) * self.up(x))


class Block(nn.Module):
    """Pre-norm transformer block whose attention is turned: tokens plus attention, plus MLP, each with LayerScale."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.norm1 = LayerNorm(config.width, eps=NORM_EPS)
        self.attention = Attention(config.width, config.heads, qkv_bias=False)
        if config.qv_bias:
            self.attention.qkv = QueryKeyValue(config.width)
        self.scale1 = LayerScale(config.width, LAYER_SCALE)
        self.norm2 = LayerNorm(config.width, eps=NORM_EPS)
        self.mlp = (SwiGLU if config.gated else Mlp)(config.width, config.mlp)
        self.scale2 = LayerScale(config.width, LAYER_SCALE)
        self.drop_path = DropPath(config.drop_path)

    def forward(
        self, x: Tensor, rotation: Rotation, *, segments: Segments | None = None, merging: Merging = NONE
    ) -> Tensor:
        x = x + self.drop_path(self.scale1(merging.attend(self.attention, self.norm1(x), rotation, segments)))
        x = merging.merge(x)
        return x + self.drop_path(self.scale2(self.mlp(self.norm2(x))))


class DINOv3(PatchTransformer):
    """Images ``(B, C, H, W)`` float, normalised, to :class:`Features` with one map at the resolution of the patches.

    Raises :class:`SettingError` for a shape that cannot be, such as heads whose width is no multiple of 4.
    """

    config: Config
    input_kernel = "patch_embedding.proj.weight"

    def __init__(self, config: Config) -> None:
        super().__init__()
        if config.width % config.heads:
            raise SettingError(f"the width {config.width} is not divisible by {config.heads} heads.")
        if config.pool not in ("class", "mean"):
            raise SettingError(f"DINOv3 has no pool '{config.pool}'; known are: class, mean.")
        patch_grid(config.image_size, config.patch_size)
        geometric_frequencies(config.width // config.heads, base=1)  # says what is wrong with the heads' width
        self.config = config
        self.class_tokens = int(config.pool == "class")
        width = config.width
        self.class_token = nn.Parameter(torch.empty(1, 1, width))
        self.registers = nn.Parameter(torch.empty(1, config.registers, width)) if config.registers else None
        self.patch_embedding = PatchEmbedding(config.channels, width, config.patch_size)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.norm = LayerNorm(width, eps=NORM_EPS)
        self._init()

    def _init(self) -> None:
        """As the authors' code: deviations of 0.02, the patch embedding as PyTorch begins it."""
        for tokens in (self.class_token, self.registers):
            if tokens is not None:
                nn.init.normal_(tokens, std=0.02)
        self.patch_embedding.proj.reset_parameters()
        for module in self.blocks.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    @property
    def prefix(self) -> int:
        """Number of tokens before the patches: class token, then registers."""
        return 1 + self.config.registers

    def forward(self, images: Tensor) -> Features:
        tokens, grid = self.embed(images)
        return self.features(self.encode(tokens, grid), grid)

    def embed(self, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Images to tokens ``(B, P + h · w, D)``, class token and registers first, and the grid ``(h, w)``."""
        maps = self.patch_embedding(images)
        grid = (maps.shape[-2], maps.shape[-1])
        first = self.class_token if self.registers is None else torch.cat([self.class_token, self.registers], dim=1)
        return torch.cat([first.expand(maps.shape[0], -1, -1), maps.flatten(2).transpose(1, 2)], dim=1), grid

    def encode(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """Tokens to tokens through all blocks and the final norm."""
        (rotation,) = self.rotations(grid)
        merging = Merging(self.merge, self.prefix)
        for block in self.blocks:
            tokens = block(tokens, rotation, merging=merging)
        return merging.restore(self.norm(tokens))

    def rotations(self, grid: tuple[int, int]) -> list[Rotation]:
        """How all blocks turn the queries and keys of an ``(h, w)`` grid of patches."""
        return [rotary_2d(grid, self.config.width // self.config.heads, device=self.class_token.device)]

    def features(self, tokens: Tensor, grid: tuple[int, int]) -> Features:
        """Encoded tokens to what a head reads: pooled vector and feature map."""
        patches = tokens[:, self.prefix :]
        pooled = tokens[:, 0] if self.config.pool == "class" else patches.mean(dim=1)
        return Features(tokens, self.prefix, grid, pooled, (patches.transpose(1, 2).unflatten(2, grid),))

    def adapted(self, weights: dict[str, Tensor], before: Config, resampling: Resampling) -> dict[str, Tensor]:
        """Weights of a model of another patch size or number of channels, resampled to this one's."""
        weights = super().adapted(weights, before, resampling)
        return weights | {self.input_kernel: resample_kernel(weights[self.input_kernel], self.config.patch_size)}
