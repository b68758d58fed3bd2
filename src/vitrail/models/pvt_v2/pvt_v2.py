"""PVT v2: Wang et al., "PVT v2: Improved Baselines with Pyramid Vision Transformer", CVMJ 2022, arXiv:2106.13797.

PVT with three changes: patches overlap; a depth-wise convolution inside each MLP takes the place of learned positions,
so that images of any size will do; and "linear" attention reduces the keys' map to 7x7 places, however large it was.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from vitrail.errors import SettingError
from vitrail.nn.backbone import Backbone
from vitrail.nn.drop import DropPath, drop_path_rates
from vitrail.nn.features import Features
from vitrail.nn.norm import LayerNorm
from vitrail.nn.reduction import ConvTokens, ReducedAttention, as_map

POOLED = 7  # side of the keys' map with linear attention


@dataclass(frozen=True)
class Config:
    """A PVT v2's shape; the first five have a number for each stage.

    Attributes:
        depths: blocks.
        widths: channels C.
        heads: attention heads.
        mlp_ratios: hidden units of an MLP for each of its channels.
        reductions: R, by which the map of keys and values is smaller in height and width; unused with ``linear``.
        linear: pool the map of keys and values to 7x7 places instead, at a cost linear in the image's area.
        image_size: height and width in pixels; any will do, it is no part of the weights.
        channels: 1 for grey images, 3 for RGB.
        qkv_bias: whether queries, keys and values have biases.
        drop_path: rate in training of the last block; grows linearly with depth.
        norm_eps: epsilon of the LayerNorms of the blocks and behind each stage.
        conv_norm_eps: epsilon of the LayerNorms behind convolutions (patch embeddings and reductions), which in the
            authors' code is another.
    """

    depths: tuple[int, ...]
    widths: tuple[int, ...] = (64, 128, 320, 512)
    heads: tuple[int, ...] = (1, 2, 5, 8)
    mlp_ratios: tuple[float, ...] = (8, 8, 4, 4)
    reductions: tuple[int, ...] = (8, 4, 2, 1)
    linear: bool = False
    image_size: tuple[int, int] = (224, 224)
    channels: int = 3
    qkv_bias: bool = True
    drop_path: float = 0.0
    norm_eps: float = 1e-6
    conv_norm_eps: float = 1e-5


SIZES: dict[str, Config] = {  # table 1
    "pvt-v2-b0": Config((2, 2, 2, 2), widths=(32, 64, 160, 256)),
    "pvt-v2-b1": Config((2, 2, 2, 2)),
    "pvt-v2-b2": Config((3, 4, 6, 3)),
    "pvt-v2-b2-li": Config((3, 4, 6, 3), linear=True),
    "pvt-v2-b3": Config((3, 4, 18, 3)),
    "pvt-v2-b4": Config((3, 8, 27, 3)),
    "pvt-v2-b5": Config((3, 6, 40, 3), mlp_ratios=(4, 4, 4, 4)),
}


class PooledTokens(ConvTokens):
    """The map ``(B, C, H, W)`` averaged to 7x7 places, and each of them mapped, normalised and put through GELU."""

    def __init__(self, width: int, *, eps: float) -> None:
        super().__init__(width, width, kernel=1, stride=1, eps=eps)

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[int, int]]:
        tokens, grid = super().forward(F.adaptive_avg_pool2d(x, POOLED))
        return F.gelu(tokens), grid


class ConvMlp(nn.Module):
    """Linear, 3x3 depth-wise convolution, GELU, linear; with ``relu``, that before the convolution."""

    def __init__(self, width: int, hidden: int, *, relu: bool) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.relu = nn.ReLU() if relu else nn.Identity()
        self.conv = nn.Conv2d(hidden, hidden, kernel_size=3, padding=1, groups=hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        y = self.conv(as_map(self.relu(self.fc1(x)), grid))
        return self.fc2(F.gelu(y).flatten(2).transpose(1, 2))


class Block(nn.Module):
    """Pre-norm transformer block: attention to a reduced map, and an MLP that sees the neighbouring places."""

    def __init__(self, config: Config, stage: int, drop_path: float) -> None:
        super().__init__()
        width = config.widths[stage]
        self.norm1 = LayerNorm(width, eps=config.norm_eps)
        self.attention = ReducedAttention(
            width, config.heads[stage], reduction(config, stage), qkv_bias=config.qkv_bias
        )
        self.norm2 = LayerNorm(width, eps=config.norm_eps)
        self.mlp = ConvMlp(width, int(width * config.mlp_ratios[stage]), relu=config.linear)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        x = x + self.drop_path(self.attention(self.norm1(x), grid))
        return x + self.drop_path(self.mlp(self.norm2(x), grid))


def reduction(config: Config, stage: int) -> ConvTokens | None:
    """What makes the tokens of a stage's keys and values out of its map; None where they are all of its tokens."""
    width, ratio, eps = config.widths[stage], config.reductions[stage], config.conv_norm_eps
    if config.linear:
        return PooledTokens(width, eps=eps)
    return ConvTokens(width, width, ratio, ratio, eps=eps) if ratio > 1 else None


class Stage(nn.Module):
    """Overlapping patches of the map before, made tokens, and blocks."""

    def __init__(self, config: Config, stage: int, drop_path: list[float]) -> None:
        super().__init__()
        width, eps = config.widths[stage], config.conv_norm_eps
        if stage == 0:
            self.embedding = ConvTokens(config.channels, width, kernel=7, stride=4, padding=3, eps=eps)
        else:
            self.embedding = ConvTokens(config.widths[stage - 1], width, kernel=3, stride=2, padding=1, eps=eps)
        self.blocks = nn.ModuleList(Block(config, stage, rate) for rate in drop_path)
        self.norm = LayerNorm(width, eps=config.norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        """The map of the stage before, or the images, ``(B, C, H, W)`` to this one's map."""
        tokens, grid = self.embedding(x)
        for block in self.blocks:
            tokens = block(tokens, grid)
        return as_map(self.norm(tokens), grid)


class PVTv2(Backbone):
    """A PVT v2 without its classifier, for images ``(B, C, H, W)`` of any size from 29 pixels on.

    Its features: ``maps`` are the stages' outputs, all normalised; ``tokens`` are the last map's places and ``pooled``
    is their mean.
    Raises :class:`SettingError` for a shape that cannot be, such as a width that the heads do not divide.
    """

    config: Config
    input_kernel = "stages.0.embedding.conv.weight"
    projections = ("q", "kv", "proj")
    layer_decay = 0.9

    def __init__(self, config: Config) -> None:
        super().__init__()
        each = (config.depths, config.widths, config.heads, config.mlp_ratios, config.reductions)
        if len({len(values) for values in each}) > 1:
            raise SettingError("depths, widths, heads, mlp_ratios and reductions need one value for each stage.")
        self.config = config
        rates = drop_path_rates(config.drop_path, sum(config.depths))
        self.stages = nn.ModuleList(
            Stage(config, stage, [rates.pop(0) for _ in range(depth)]) for stage, depth in enumerate(config.depths)
        )
        self._initialise()

    def _initialise(self) -> None:
        """As the authors' code: small linear maps, He's convolutions by their outputs, zero biases."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
            elif isinstance(module, nn.Conv2d):
                fan_out = module.weight[0, 0].numel() * module.out_channels // module.groups
                nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))
            if isinstance(module, nn.Linear | nn.Conv2d) and module.bias is not None:
                nn.init.zeros_(module.bias)

    def forward(self, images: Tensor) -> Features:
        """Float images ``(B, C, H, W)``, normalised, to features."""
        maps = [images]
        for stage in self.stages:
            maps.append(stage(maps[-1]))
        tokens = maps[-1].flatten(2).transpose(1, 2)
        grid = (maps[-1].shape[-2], maps[-1].shape[-1])
        return Features(tokens, prefix=0, grid=grid, pooled=tokens.mean(dim=1), maps=tuple(maps[1:]))

    @property
    def width(self) -> int:
        """Channels of the last stage, the size of ``pooled``."""
        return self.config.widths[-1]

    @property
    def depth(self) -> int:
        """The number of blocks."""
        return sum(self.config.depths)

    def layer(self, parameter_name: str) -> int:
        """0 for the patches, then the blocks counted through all stages, with the embedding before and norm behind."""
        _, stage, part, *rest = parameter_name.split(".")
        before, depth = sum(self.config.depths[: int(stage)]), self.config.depths[int(stage)]
        if part == "blocks":
            return before + int(rest[0]) + 1
        if part == "norm":
            return before + depth
        return before + 1 if int(stage) else 0
