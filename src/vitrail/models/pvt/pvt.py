"""PVT: Wang et al., "Pyramid Vision Transformer: A Versatile Backbone for Dense Prediction without Convolutions",
ICCV 2021, arXiv:2102.12122.

Four stages, each on a map of half the height and width of the one before, give the pyramid that detection and
segmentation need; the fine maps are affordable because keys and values come from a reduced map. Each stage has learned
positions of its own, and a class token joins the last.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vitrail.errors import SettingError
from vitrail.nn.backbone import Backbone
from vitrail.nn.drop import DropPath, drop_path_rates
from vitrail.nn.features import Features
from vitrail.nn.mlp import Mlp
from vitrail.nn.norm import LayerNorm
from vitrail.nn.position import Resampling, resample_positions
from vitrail.nn.reduction import ConvTokens, ReducedAttention, as_map


@dataclass(frozen=True)
class Config:
    """A pyramid vision transformer's shape; the first five have a number for each stage.

    Attributes:
        depths: blocks.
        widths: channels C.
        heads: attention heads.
        mlp_ratios: hidden units of an MLP for each of its channels.
        reductions: R, by which the map of keys and values is smaller in height and width; 1 in the last stage.
        image_size: height and width in pixels; fixes the grids of learned positions.
        channels: 1 for grey images, 3 for RGB.
        qkv_bias: whether queries, keys and values have biases.
        drop_path: rate in training of the last block; grows linearly with depth.
        norm_eps: epsilon of the LayerNorms of the blocks and of the last one.
        conv_norm_eps: epsilon of the LayerNorms behind convolutions (patch embeddings and reductions), which in the
            authors' code is another.
    """

    depths: tuple[int, ...]
    widths: tuple[int, ...] = (64, 128, 320, 512)
    heads: tuple[int, ...] = (1, 2, 5, 8)
    mlp_ratios: tuple[float, ...] = (8, 8, 4, 4)
    reductions: tuple[int, ...] = (8, 4, 2, 1)
    image_size: tuple[int, int] = (224, 224)
    channels: int = 3
    qkv_bias: bool = True
    drop_path: float = 0.0
    norm_eps: float = 1e-6
    conv_norm_eps: float = 1e-5


SIZES: dict[str, Config] = {  # table 1
    "pvt-tiny": Config((2, 2, 2, 2)),
    "pvt-small": Config((3, 4, 6, 3)),
    "pvt-medium": Config((3, 4, 18, 3)),
    "pvt-large": Config((3, 8, 27, 3)),
}


def patch_size(stage: int) -> int:
    """Side of a stage's patches, in pixels for the first stage, in places of the map before for the others."""
    return 2 if stage else 4


def grids(config: Config) -> list[tuple[int, int]]:
    """Height and width of each stage's map, for images of the config's size; what is left over at the edges is cut."""
    height, width = config.image_size
    return [(height // 2 ** (stage + 2), width // 2 ** (stage + 2)) for stage in range(len(config.depths))]


class Block(nn.Module):
    """Pre-norm transformer block with spatial-reduction attention (section 3.3)."""

    def __init__(self, config: Config, stage: int, drop_path: float) -> None:
        super().__init__()
        width, ratio = config.widths[stage], config.reductions[stage]
        reduction = ConvTokens(width, width, ratio, ratio, eps=config.conv_norm_eps) if ratio > 1 else None
        self.norm1 = LayerNorm(width, eps=config.norm_eps)
        self.attention = ReducedAttention(width, config.heads[stage], reduction, qkv_bias=config.qkv_bias)
        self.norm2 = LayerNorm(width, eps=config.norm_eps)
        self.mlp = Mlp(width, int(width * config.mlp_ratios[stage]))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        x = x + self.drop_path(self.attention(self.norm1(x), grid))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class Stage(nn.Module):
    """Patches of the map before, made tokens with positions, and blocks; in the last stage behind a class token."""

    def __init__(self, config: Config, stage: int, drop_path: list[float]) -> None:
        super().__init__()
        width, last = config.widths[stage], stage == len(config.depths) - 1
        channels, side = config.widths[stage - 1] if stage else config.channels, patch_size(stage)
        self.image_size, self.grid = config.image_size, grids(config)[stage]
        self.class_token = nn.Parameter(torch.empty(1, 1, width)) if last else None
        self.positions = nn.Parameter(torch.empty(1, self.grid[0] * self.grid[1] + last, width))
        self.embedding = ConvTokens(channels, width, side, side, eps=config.conv_norm_eps)
        self.blocks = nn.ModuleList(Block(config, stage, rate) for rate in drop_path)

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """The map of the stage before, or the images, ``(B, C, H, W)`` to tokens ``(B, P + h · w, D)`` and (h, w)."""
        tokens, grid = self.embedding(x)
        if grid != self.grid:
            raise SettingError(
                "this model's learned positions are for maps of {}x{}, the image gives {}x{}; "
                "give images of {}x{} pixels.".format(*self.grid, *grid, *self.image_size)
            )
        if self.class_token is not None:
            tokens = torch.cat([self.class_token.expand(tokens.shape[0], -1, -1), tokens], dim=1)
        tokens = tokens + self.positions
        for block in self.blocks:
            tokens = block(tokens, grid)
        return tokens, grid


class PVT(Backbone):
    """A pyramid vision transformer without its classifier.

    Its features: ``maps`` are the stages' outputs, of which the last is normalised and the others are not; ``tokens``
    are the class token, which is ``pooled``, and the last map's places.
    Raises :class:`SettingError` for a shape that cannot be, such as images too small for the stages.
    """

    config: Config
    input_kernel = "stages.0.embedding.conv.weight"
    class_tokens = 1
    projections = ("q", "kv", "proj")
    layer_decay = 0.9

    def __init__(self, config: Config) -> None:
        super().__init__()
        _check(config)
        self.config = config
        rates = drop_path_rates(config.drop_path, sum(config.depths))
        self.stages = nn.ModuleList(
            Stage(config, stage, [rates.pop(0) for _ in range(depth)]) for stage, depth in enumerate(config.depths)
        )
        self.norm = LayerNorm(self.width, eps=config.norm_eps)
        self._initialise()

    def _initialise(self) -> None:
        """As the authors' code: small linear maps, positions and class token, zero biases; PyTorch's convolutions."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for name, parameter in self.named_parameters():
            if name.endswith(("positions", "class_token")):
                nn.init.trunc_normal_(parameter, std=0.02)

    def forward(self, images: Tensor) -> Features:
        """Float images ``(B, C, H, W)`` of the config's size, normalised, to features."""
        *stages, last = self.stages
        maps = [images]
        for stage in stages:
            maps.append(as_map(*stage(maps[-1])))
        tokens, grid = last(maps[-1])
        tokens = self.norm(tokens)
        maps.append(as_map(tokens[:, 1:], grid))
        return Features(tokens, prefix=1, grid=grid, pooled=tokens[:, 0], maps=tuple(maps[1:]))

    def adapted(self, weights: dict[str, Tensor], before: Config, resampling: Resampling) -> dict[str, Tensor]:
        """Weights of a PVT of another image size or number of channels, resampled to this one's."""
        weights = super().adapted(weights, before, resampling)
        for stage, (old, new) in enumerate(zip(grids(before), grids(self.config), strict=True)):
            name = f"stages.{stage}.positions"
            weights |= {name: resample_positions(weights[name], old, new, resampling)}
        return weights

    @property
    def width(self) -> int:
        """Channels of the last stage, the size of ``pooled``."""
        return self.config.widths[-1]

    @property
    def depth(self) -> int:
        """Number of the last layer for layer-wise learning rates: blocks + 1."""
        return sum(self.config.depths) + 1

    def layer(self, parameter_name: str) -> int:
        """0 for the patches, then the blocks counted through all stages, an embedding with the block behind it."""
        first, *rest = parameter_name.split(".")
        if first == "norm":
            return self.depth
        stage, part, *rest = rest
        if part == "blocks":
            return sum(self.config.depths[: int(stage)]) + int(rest[0]) + 1
        return sum(self.config.depths[: int(stage)]) + 1 if int(stage) else 0


def _check(config: Config) -> None:
    each = (config.depths, config.widths, config.heads, config.mlp_ratios, config.reductions)
    if len({len(values) for values in each}) > 1:
        raise SettingError("depths, widths, heads, mlp_ratios and reductions need one value for each stage.")
    if config.reductions[-1] != 1:
        raise SettingError("the last stage has a class token, which is on no map to be reduced; give 1 for it.")
    least = max(2 ** (stage + 2) * ratio for stage, ratio in enumerate(config.reductions))
    if min(config.image_size) < least:
        raise SettingError(
            "images of {}x{} pixels are too small for this PVT; give at least {}x{}.".format(
                *config.image_size, least, least
            )
        )
