"""DeiT: "Training data-efficient image transformers & distillation through attention" (Touvron et al., ICML 2021,
arXiv:2012.12877), and DeiT III: "Revenge of the ViT" (Touvron, Cord, Jégou, ECCV 2022, arXiv:2204.07118).

DeiT is ViT's network with a recipe that needs no more than ImageNet. Its distilled models carry a second token beside
the class token, which learns what a teacher says; see `objectives.distill`. DeiT III scales the residual branches and
gives positions to the patches alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vitrail.errors import SettingError
from vitrail.models.vit.vit import Block
from vitrail.models.vit.vit import Config as BlockConfig
from vitrail.nn.drop import drop_path_rates
from vitrail.nn.features import Features
from vitrail.nn.merging import Merging
from vitrail.nn.norm import LayerNorm
from vitrail.nn.patch import PatchEmbedding, patch_grid, resample_kernel
from vitrail.nn.patch_transformer import PatchTransformer
from vitrail.nn.position import Resampling, resample_positions


@dataclass(frozen=True)
class Config:
    """A data-efficient image transformer's shape.

    Attributes:
        width, depth, heads, mlp: token size D, number of blocks, attention heads, hidden units of the MLP.
        image_size: height and width in pixels; fixes the grid of positions.
        patch_size: side of a patch in pixels.
        channels: 1 for grey images, 3 for RGB.
        distilled: a distillation token beside the class token, each with a classifier of its own.
        class_only: in a distilled model the class token decides alone (Transformers' DeiTForImageClassification).
        token_positions: whether those tokens have positions, too, as the patches have (not in DeiT III).
        dropout, drop_path: rates in training; drop-path grows linearly with depth.
        layer_scale: initial factor of each residual branch (DeiT III), None for no factors.
        norm_eps: epsilon of every LayerNorm.
    """

    width: int
    depth: int
    heads: int
    mlp: int
    image_size: tuple[int, int] = (224, 224)
    patch_size: int = 16
    channels: int = 3
    distilled: bool = False
    class_only: bool = False
    token_positions: bool = True
    dropout: float = 0.0
    drop_path: float = 0.0
    layer_scale: float | None = None
    norm_eps: float = 1e-6


def _third(width: int, depth: int, heads: int, mlp: int, patch_size: int = 16) -> Config:
    return Config(width, depth, heads, mlp, patch_size=patch_size, token_positions=False, layer_scale=1e-4)


SIZES: dict[str, Config] = {
    # Touvron et al. 2021, table 1.
    "deit-ti16": Config(192, 12, 3, 768),
    "deit-s16": Config(384, 12, 6, 1536),
    "deit-b16": Config(768, 12, 12, 3072),
    "deit-ti16-distilled": Config(192, 12, 3, 768, distilled=True),
    "deit-s16-distilled": Config(384, 12, 6, 1536, distilled=True),
    "deit-b16-distilled": Config(768, 12, 12, 3072, distilled=True),
    # Touvron et al. 2022; the medium one and the initial LayerScale are of the authors' models_v2.py.
    "deit3-s16": _third(384, 12, 6, 1536),
    "deit3-m16": _third(512, 12, 8, 2048),
    "deit3-b16": _third(768, 12, 12, 3072),
    "deit3-l16": _third(1024, 24, 16, 4096),
    "deit3-h14": _third(1280, 32, 16, 5120, patch_size=14),
}


class DeiT(PatchTransformer):
    """Images ``(B, C, H, W)`` float, normalised, to :class:`Features` with one map at the resolution of the patches.

    ``pooled`` is the class token's vector; where class and distillation token decide together, the mean of both.
    Raises :class:`SettingError` for a shape that cannot be, such as a width that the heads do not divide.
    """

    config: Config
    input_kernel = "patch_embedding.proj.weight"

    def __init__(self, config: Config) -> None:
        super().__init__()
        if config.width % config.heads:
            raise SettingError(f"the width {config.width} is not divisible by {config.heads} heads.")
        self.config = config
        self.classifier = "distilled" if config.distilled and not config.class_only else "linear"
        self.class_tokens = 2 if self.classifier == "distilled" else 1
        self.grid = patch_grid(config.image_size, config.patch_size)
        width = config.width
        self.class_token = nn.Parameter(torch.empty(1, 1, width))
        self.distillation_token = nn.Parameter(torch.empty(1, 1, width)) if config.distilled else None
        positions = self.grid[0] * self.grid[1] + (self.prefix if config.token_positions else 0)
        self.positions = nn.Parameter(torch.empty(1, positions, width))
        self.patch_embedding = PatchEmbedding(config.channels, width, config.patch_size)
        self.drop = nn.Dropout(config.dropout)
        block, rates = block_config(config), drop_path_rates(config.drop_path, config.depth)
        self.blocks = nn.ModuleList(Block(block, rate) for rate in rates)
        self.norm = LayerNorm(width, eps=config.norm_eps)
        self._init()

    def _init(self) -> None:
        """As the authors' code: truncated normal of deviation 0.02, the patch embedding as PyTorch begins it."""
        for parameter in self.parameters(recurse=False):
            nn.init.trunc_normal_(parameter, std=0.02)
        self.patch_embedding.proj.reset_parameters()
        for module in self.blocks.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    @property
    def prefix(self) -> int:
        """Number of tokens before the patches: the class token, then the distillation token."""
        return 1 + self.config.distilled

    def forward(self, images: Tensor) -> Features:
        tokens, grid = self.embed(images)
        return self.features(self.encode(tokens), grid)

    def embed(self, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Images to tokens ``(B, P + h · w, D)`` with their positions, and the grid ``(h, w)``."""
        maps = self.patch_embedding(images)
        grid = (maps.shape[-2], maps.shape[-1])
        positions = self.learned_positions(grid)
        patches = maps.flatten(2).transpose(1, 2)
        first = [token.expand(patches.shape[0], -1, -1) for token in self._prefix_tokens()]
        if self.config.token_positions:
            x = torch.cat([*first, patches], dim=1) + positions
        else:
            x = torch.cat([*first, patches + positions], dim=1)
        return self.drop(x), grid

    def encode(self, tokens: Tensor) -> Tensor:
        """Tokens to tokens through all blocks and the final norm."""
        merging = Merging(self.merge, self.prefix)
        for block in self.blocks:
            tokens = block(tokens, merging=merging)
        return merging.restore(self.norm(tokens))

    def features(self, tokens: Tensor, grid: tuple[int, int]) -> Features:
        """Encoded tokens to what a head reads: pooled vector and feature map."""
        deciding = tokens[:, :2] if self.classifier == "distilled" else tokens[:, :1]
        feature_map = tokens[:, self.prefix :].transpose(1, 2).unflatten(2, grid)
        return Features(tokens, self.prefix, grid, deciding.mean(dim=1), (feature_map,))

    def adapted(self, weights: dict[str, Tensor], before: Config, resampling: Resampling) -> dict[str, Tensor]:
        """Weights of a DeiT of another image size, patch size or number of channels, resampled to this one's."""
        weights = super().adapted(weights, before, resampling)
        grid = patch_grid(before.image_size, before.patch_size)
        return weights | {
            self.input_kernel: resample_kernel(weights[self.input_kernel], self.config.patch_size),
            "positions": resample_positions(weights["positions"], grid, self.grid, resampling),
        }

    def _prefix_tokens(self) -> list[Tensor]:
        return [self.class_token] if self.distillation_token is None else [self.class_token, self.distillation_token]


def block_config(config: Config) -> BlockConfig:
    """What ViT's block reads: its plain form, but for the scales of DeiT III."""
    return BlockConfig(
        config.width,
        config.depth,
        config.heads,
        config.mlp,
        dropout=config.dropout,
        layer_scale=config.layer_scale,
        norm_eps=config.norm_eps,
    )
