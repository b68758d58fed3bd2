"""RoPE-ViT: Heo, Park, Han, Yun, "Rotary position embedding for vision transformer", ECCV 2024, arXiv:2403.13298.

The vision transformer of DeiT III, whose queries and keys are turned by where their patch is. No position is stored for
any place, so a larger image needs nothing new: the patches beyond the edge go on counting.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
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
from vitrail.nn.position import Resampling, resample_positions
from vitrail.nn.rope import Rotation, axial_angles, geometric_frequencies, mixed_angles, patch_numbers, rotation
from vitrail.nn.segments import Segments

BASE = {"axial": 100.0, "mixed": 10.0}  # of the frequencies; with "mixed" those that learning begins with
LAYER_SCALE = 1e-4  # initial factor of each residual branch


@dataclass(frozen=True)
class Config:
    """A RoPE-ViT's shape.

    Attributes:
        width, depth, heads, mlp: token size D, number of blocks, attention heads, hidden units of the MLP.
        rotary: "axial", half of each head turns by the column, half by the row; "mixed", every pair of features turns
            by both, with frequencies learned for each block and head.
        absolute: also learned positions, added to the patches (the paper's + APE); they fix the image size.
        image_size: height and width in pixels; fixes the grid of learned positions only.
        patch_size: side of a patch in pixels.
        channels: 1 for grey images, 3 for RGB.
        drop_path: rate in training, the same for every block, as in DeiT III.
    """

    width: int
    depth: int
    heads: int
    mlp: int
    rotary: Literal["axial", "mixed"] = "mixed"
    absolute: bool = False
    image_size: tuple[int, int] = (224, 224)
    patch_size: int = 16
    channels: int = 3
    drop_path: float = 0.0


SIZES: dict[str, Config] = {  # the DeiT III sizes of the authors' code, models/vit_rope.py
    "rope-vit-s16": Config(384, 12, 6, 1536, "mixed"),
    "rope-vit-s16-ape": Config(384, 12, 6, 1536, "mixed", absolute=True),
    "rope-vit-s16-axial": Config(384, 12, 6, 1536, "axial"),
    "rope-vit-s16-axial-ape": Config(384, 12, 6, 1536, "axial", absolute=True),
    "rope-vit-b16": Config(768, 12, 12, 3072, "mixed"),
    "rope-vit-b16-ape": Config(768, 12, 12, 3072, "mixed", absolute=True),
    "rope-vit-b16-axial": Config(768, 12, 12, 3072, "axial"),
    "rope-vit-b16-axial-ape": Config(768, 12, 12, 3072, "axial", absolute=True),
    "rope-vit-l16": Config(1024, 24, 16, 4096, "mixed"),
    "rope-vit-l16-ape": Config(1024, 24, 16, 4096, "mixed", absolute=True),
    "rope-vit-l16-axial": Config(1024, 24, 16, 4096, "axial"),
    "rope-vit-l16-axial-ape": Config(1024, 24, 16, 4096, "axial", absolute=True),
}


class Block(nn.Module):
    """Pre-norm transformer block whose attention is turned: tokens plus attention, plus MLP, each with LayerScale."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.norm1 = LayerNorm(config.width)
        self.attention = Attention(config.width, config.heads)
        self.scale1 = LayerScale(config.width, LAYER_SCALE)
        self.norm2 = LayerNorm(config.width)
        self.mlp = Mlp(config.width, config.mlp)
        self.scale2 = LayerScale(config.width, LAYER_SCALE)
        self.drop_path = DropPath(config.drop_path)

    def forward(
        self, x: Tensor, rotation: Rotation, *, segments: Segments | None = None, merging: Merging = NONE
    ) -> Tensor:
        x = x + self.drop_path(self.scale1(merging.attend(self.attention, self.norm1(x), rotation, segments)))
        x = merging.merge(x)
        return x + self.drop_path(self.scale2(self.mlp(self.norm2(x))))


class RoPEViT(PatchTransformer):
    """Images ``(B, C, H, W)`` float, normalised, to :class:`Features` with one map at the resolution of the patches.

    Raises :class:`SettingError` for a shape that cannot be, such as heads whose width is no multiple of 4.
    """

    config: Config
    input_kernel = "patch_embedding.proj.weight"
    class_tokens = 1

    def __init__(self, config: Config) -> None:
        super().__init__()
        if config.rotary not in BASE:
            raise SettingError(f"there are no '{config.rotary}' rotary positions; known are: {', '.join(BASE)}.")
        if config.width % config.heads:
            raise SettingError(f"the width {config.width} is not divisible by {config.heads} heads.")
        self.config = config
        self.grid = patch_grid(config.image_size, config.patch_size)
        width, begin = config.width, geometric_frequencies(config.width // config.heads, BASE[config.rotary])
        self.class_token = nn.Parameter(torch.empty(1, 1, width))
        self.positions = nn.Parameter(torch.empty(1, math.prod(self.grid), width)) if config.absolute else None
        learned = turned_axes(begin, config.depth, config.heads) if config.rotary == "mixed" else None
        self.frequencies = None if learned is None else nn.Parameter(learned)
        self.patch_embedding = PatchEmbedding(config.channels, width, config.patch_size)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.norm = LayerNorm(width)
        self._init()

    def _init(self) -> None:
        """As the authors' code: truncated normal of deviation 0.02, the patch embedding as PyTorch begins it."""
        for tokens in (self.class_token, self.positions):
            if tokens is not None:
                nn.init.trunc_normal_(tokens, std=0.02)
        self.patch_embedding.proj.reset_parameters()
        for module in self.blocks.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, images: Tensor) -> Features:
        tokens, grid = self.embed(images)
        return self.features(self.encode(tokens, grid), grid)

    def embed(self, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Images to tokens ``(B, 1 + h · w, D)``, the class token first, and the grid ``(h, w)``."""
        maps = self.patch_embedding(images)
        grid = (maps.shape[-2], maps.shape[-1])
        patches = maps.flatten(2).transpose(1, 2)
        if self.positions is not None:
            patches = patches + self.learned_positions(grid)
        return torch.cat([self.class_token.expand(patches.shape[0], -1, -1), patches], dim=1), grid

    def encode(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """Tokens to tokens through all blocks and the final norm."""
        merging = Merging(self.merge, prefix=1)
        for block, turns in zip(self.blocks, self.rotations(grid), strict=True):
            tokens = block(tokens, turns, merging=merging)
        return merging.restore(self.norm(tokens))

    def rotations(self, grid: tuple[int, int]) -> list[Rotation]:
        """How each block turns the queries and keys of an ``(h, w)`` grid of patches."""
        device = self.class_token.device
        places = patch_numbers(grid, device).flip(-1)  # the authors' first axis is the horizontal one
        if self.frequencies is not None:
            return [rotation(angles, "neighbours") for angles in mixed_angles(places, self.frequencies)]
        frequencies = geometric_frequencies(self.config.width // self.config.heads, BASE["axial"], device)
        return [rotation(axial_angles(places, frequencies), "neighbours")] * self.config.depth

    def features(self, tokens: Tensor, grid: tuple[int, int]) -> Features:
        """Encoded tokens to what a head reads: the class token's vector and the feature map."""
        feature_map = tokens[:, 1:].transpose(1, 2).unflatten(2, grid)
        return Features(tokens, 1, grid, tokens[:, 0], (feature_map,))

    def adapted(self, weights: dict[str, Tensor], before: Config, resampling: Resampling) -> dict[str, Tensor]:
        """Weights of a RoPE-ViT of another image size, patch size or number of channels, resampled to this one's."""
        weights = super().adapted(weights, before, resampling)
        weights |= {self.input_kernel: resample_kernel(weights[self.input_kernel], self.config.patch_size)}
        if self.positions is not None:
            grid = patch_grid(before.image_size, before.patch_size)
            weights |= {"positions": resample_positions(weights["positions"], grid, self.grid, resampling)}
        return weights


def turned_axes(frequencies: Tensor, depth: int, heads: int) -> Tensor:
    """Mixed frequencies ``(2, depth, heads, d / 2)`` to begin with, horizontal then vertical, from ``(d / 4,)``.

    Those of axial positions, with the two axes of each head turned by an angle drawn for it.
    """
    angle = 2 * math.pi * torch.rand(depth, heads, 1, device=frequencies.device)
    angles = torch.cat([angle, angle + math.pi / 2], dim=-1).repeat_interleave(len(frequencies), dim=-1)
    return frequencies.repeat(2) * torch.stack([angles.cos(), angles.sin()])
