"""Swin: Liu et al., "Swin Transformer: Hierarchical Vision Transformer using Shifted Windows", ICCV 2021,
arXiv:2103.14030.

Tokens attend to those in the same window of a map, so that cost grows with the image's area and not with its square;
every other block shifts the windows by half, so that neighbours meet; and from stage to stage 2x2 places are merged
into one, which gives the pyramid of maps that a convolutional network has. Every LayerNorm has PyTorch's epsilon, 1e-5.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

import torch.nn.functional as F
from torch import Tensor, nn

from vitrail.errors import SettingError
from vitrail.nn.attention import join_heads, split_heads
from vitrail.nn.backbone import Backbone
from vitrail.nn.drop import DropPath, drop_path_rates
from vitrail.nn.features import Features
from vitrail.nn.mlp import Mlp
from vitrail.nn.patch import PatchEmbedding, resample_kernel
from vitrail.nn.position import Resampling
from vitrail.nn.reach import Windowed
from vitrail.nn.window import Borders, Windows, fit, merge, partition, relative_positions, resample_table, shift_mask


@dataclass(frozen=True)
class Config:
    """A Swin transformer's shape.

    Attributes:
        width: channels C of the first stage; doubled from stage to stage.
        depths, heads: blocks and attention heads of each stage.
        window: side M of a window in places of the map, for all stages or for each.
        image_size: height and width in pixels; limits the windows, and so the tables of relative positions, of stages
            whose maps are smaller. Images of other sizes will do.
        channels: 1 for grey images, 3 for RGB.
        patch_size: side of a patch in pixels.
        mlp_ratio: hidden units of an MLP for each of its channels.
        qkv_bias: whether queries, keys and values have biases.
        drop_path: rate in training of the last block; grows linearly with depth.
        borders: what is done where windows do not fit a map, in which libraries differ; see `vitrail.nn.window`.
    """

    width: int
    depths: tuple[int, ...]
    heads: tuple[int, ...]
    window: int | tuple[int, ...] = 7
    image_size: tuple[int, int] = (224, 224)
    channels: int = 3
    patch_size: int = 4
    mlp_ratio: float = 4.0
    qkv_bias: bool = True
    drop_path: float = 0.0
    borders: Borders = "paper"


SIZES: dict[str, Config] = {  # section 3.3; heads have 32 channels each
    "swin-t": Config(96, (2, 2, 6, 2), (3, 6, 12, 24)),
    "swin-s": Config(96, (2, 2, 18, 2), (3, 6, 12, 24)),
    "swin-b": Config(128, (2, 2, 18, 2), (4, 8, 16, 32)),
    "swin-l": Config(192, (2, 2, 18, 2), (6, 12, 24, 48)),
}


def map_sizes(config: Config) -> list[tuple[int, int]]:
    """Height and width of each stage's map, for images of the config's size."""
    height, width = (-(-side // config.patch_size) for side in config.image_size)
    return [(-(-height // 2**stage), -(-width // 2**stage)) for stage in range(len(config.depths))]


def windows_per_stage(config: Config) -> tuple[int, ...]:
    """The side of each stage's windows that the config asks for."""
    return (config.window,) * len(config.depths) if isinstance(config.window, int) else config.window


def table_windows(config: Config) -> list[tuple[int, int]]:
    """The windows that each stage has tables for: those asked for, or what the map of an image leaves of them."""
    stages = zip(map_sizes(config), windows_per_stage(config), strict=True)
    return [fit(size, (side, side), config.borders).size for size, side in stages]


class WindowAttention(nn.Module):
    """Multi-head self-attention within windows, with a learned bias for each offset between two places (eq. 4).

    Args:
        width: channels C, divisible by ``heads``.
        window: the largest window, height and width; the table has its (2h - 1)(2w - 1) offsets.
    """

    def __init__(self, width: int, heads: int, window: tuple[int, int], *, qkv_bias: bool) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=qkv_bias)
        self.bias_table = nn.Parameter(self.qkv.weight.new_empty((2 * window[0] - 1) * (2 * window[1] - 1), heads))
        self.proj = nn.Linear(width, width)
        nn.init.trunc_normal_(self.bias_table, std=0.02)

    def forward(self, x: Tensor, windows: Windows, positions: Tensor, mask: Tensor | None) -> Tensor:
        """A map ``(B, H, W, C)`` to the same shape.

        Args:
            x: the map.
            windows: how it is cut.
            positions: ``(N, N)``, the table's row for each pair of places of a window.
            mask: ``(n, N, N)``, added to the logits; None where all places of a window may see each other.
        """
        q, k, v = self.queries_keys_values(x, windows)
        return self._merged(self._softmax(q, k, positions, mask) @ v, x, windows)

    def queries_keys_values(self, x: Tensor, windows: Windows) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of each window, ``(B, n, heads, N, d)``."""
        q, k, v = (split_heads(part, self.heads) for part in self.qkv(partition(x, windows)).chunk(3, dim=-1))
        return q, k, v

    def probabilities(self, x: Tensor, windows: Windows, positions: Tensor, mask: Tensor | None) -> Tensor:
        """The attention that :meth:`forward` pays for the same input, ``(B, n, heads, N, N)``; for looking inside."""
        q, k, _ = self.queries_keys_values(x, windows)
        return self._softmax(q, k, positions, mask)

    def attended(
        self, probabilities: Tensor, x: Tensor, windows: Windows, positions: Tensor, mask: Tensor | None
    ) -> Tensor:
        """What :meth:`forward` would give if it paid attention with these ``probabilities``."""
        return self._merged(probabilities @ self.queries_keys_values(x, windows)[2], x, windows)

    def reach(self, x: Tensor, windows: Windows, positions: Tensor, mask: Tensor | None) -> Windowed:
        """The places of the map reach those in their window."""
        return Windowed((x.shape[1], x.shape[2]), windows)

    def _softmax(self, q: Tensor, k: Tensor, positions: Tensor, mask: Tensor | None) -> Tensor:
        # Not by indexing, whose gradient is summed up in no certain order on several threads.
        bias = F.embedding(positions, self.bias_table).permute(2, 0, 1)
        if mask is not None:
            bias = bias + mask[:, None].to(bias)
        return (q * q.shape[-1] ** -0.5 @ k.transpose(-2, -1) + bias).softmax(dim=-1)

    def _merged(self, mixed: Tensor, x: Tensor, windows: Windows) -> Tensor:
        """The values ``(B, n, heads, N, d)`` that the places took, as a map as large as ``x``."""
        return merge(self.proj(join_heads(mixed)), windows, (x.shape[1], x.shape[2]))


class Block(nn.Module):
    """Attention in windows and an MLP, each added to the normalised input that it reads (eq. 3)."""

    def __init__(self, config: Config, stage: int, window: tuple[int, int], drop_path: float) -> None:
        super().__init__()
        width = config.width * 2**stage
        self.norm1 = nn.LayerNorm(width)
        self.attention = WindowAttention(width, config.heads[stage], window, qkv_bias=config.qkv_bias)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = Mlp(width, int(width * config.mlp_ratio))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, windows: Windows, positions: Tensor, mask: Tensor | None) -> Tensor:
        """A map ``(B, H, W, C)`` to the same shape; arguments as of `WindowAttention`."""
        x = x + self.drop_path(self.attention(self.norm1(x), windows, positions, mask))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class PatchMerging(nn.Module):
    """2x2 places of C channels to one of 2C; zeros make up for an odd row or column at the end (section 3.1)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * width)
        self.reduction = nn.Linear(4 * width, 2 * width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, H, W, C)`` to ``(B, H / 2, W / 2, 2C)``, rounded up."""
        x = F.pad(x, (0, 0, 0, x.shape[2] % 2, 0, x.shape[1] % 2))
        x = x.unflatten(2, (-1, 2)).unflatten(1, (-1, 2))  # (B, H/2, 2, W/2, 2, C); the four go column by column
        return self.reduction(self.norm(x.permute(0, 1, 3, 4, 2, 5).flatten(3)))


class Stage(nn.Module):
    """Blocks on maps of one size, the windows of every second one shifted; before them, but in stage 0, the merging."""

    def __init__(self, config: Config, stage: int, window: tuple[int, int], drop_path: list[float]) -> None:
        super().__init__()
        self.window = window
        self.borders = config.borders
        self.merging = PatchMerging(config.width * 2 ** (stage - 1)) if stage else nn.Identity()
        self.blocks = nn.ModuleList(Block(config, stage, window, rate) for rate in drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, H, W, C)`` of the stage before to this one's map."""
        x = self.merging(x)
        size = (x.shape[1], x.shape[2])
        shifted = fit(size, self.window, self.borders)
        regular = shifted._replace(shift=(0, 0))
        positions = relative_positions(shifted.size, self.window, x.device)
        mask = shift_mask(size, shifted, x.device) if any(shifted.shift) else None
        for number, block in enumerate(self.blocks):
            x = block(x, shifted, positions, mask) if number % 2 else block(x, regular, positions, None)
        return x


class Swin(Backbone):
    """A Swin transformer without its classifier, for images ``(B, C, H, W)`` of any size.

    Its features: ``maps`` are the stages' outputs, of which the last is normalised and the others are not; ``tokens``
    are the last map's places and ``pooled`` is their mean.
    Raises :class:`SettingError` for a shape that cannot be, such as a width that the heads do not divide.
    """

    config: Config
    input_kernel = "patch_embedding.proj.weight"
    projections = ("qkv", "proj")
    layer_decay = 0.9

    def __init__(self, config: Config) -> None:
        super().__init__()
        _check(config)
        self.config = config
        self.patch_embedding = PatchEmbedding(config.channels, config.width, config.patch_size)
        self.patch_norm = nn.LayerNorm(config.width)
        rates = drop_path_rates(config.drop_path, sum(config.depths))
        stages = enumerate(zip(config.depths, table_windows(config), strict=True))
        self.stages = nn.ModuleList(
            Stage(config, number, window, [rates.pop(0) for _ in range(depth)]) for number, (depth, window) in stages
        )
        self.norm = nn.LayerNorm(self.width)
        self._initialise()

    def _initialise(self) -> None:
        """As the authors' code: small linear maps with zero biases; the convolution as PyTorch begins it."""
        self.patch_embedding.proj.reset_parameters()
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, images: Tensor) -> Features:
        """Float images ``(B, C, H, W)``, normalised, to features."""
        maps = self.encode(self.embed(images))
        last = maps[-1]
        tokens = last.flatten(1, 2)
        return Features(
            tokens=tokens,
            prefix=0,
            grid=(last.shape[1], last.shape[2]),
            pooled=tokens.mean(dim=1),
            maps=tuple(each.permute(0, 3, 1, 2) for each in maps),
        )

    def embed(self, images: Tensor) -> Tensor:
        """Images to the map of patches ``(B, H / p, W / p, C)``; zeros fill up the last patches of a row and column."""
        right, bottom = (-images.shape[side] % self.config.patch_size for side in (3, 2))
        patches = self.patch_embedding(F.pad(images, (0, right, 0, bottom)))
        return self.patch_norm(patches.permute(0, 2, 3, 1))

    def encode(self, x: Tensor) -> list[Tensor]:
        """The map of patches to each stage's map ``(B, H, W, C)``, the last one normalised."""
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return [*maps[:-1], self.norm(x)]

    def adapted(self, weights: dict[str, Tensor], before: Config, resampling: Resampling) -> dict[str, Tensor]:
        """Weights of a Swin of other windows, another image or patch size or other channels, resampled to these."""
        weights = super().adapted(weights, before, resampling)
        weights |= {self.input_kernel: resample_kernel(weights[self.input_kernel], self.config.patch_size)}
        changes = zip(self.config.depths, table_windows(before), table_windows(self.config), strict=True)
        for stage, (depth, old, new) in enumerate(changes):
            for block in range(depth):
                name = f"stages.{stage}.blocks.{block}.attention.bias_table"
                weights |= {name: resample_table(weights[name], old, new, resampling)}
        return weights

    @property
    def width(self) -> int:
        """Channels of the last stage, the size of ``pooled``."""
        return self.config.width * 2 ** (len(self.config.depths) - 1)

    @property
    def depth(self) -> int:
        """Number of the last layer for layer-wise learning rates: blocks + 1."""
        return sum(self.config.depths) + 1

    def layer(self, parameter_name: str) -> int:
        """0 for the patches, then the blocks counted through all stages, a merging with the block behind it."""
        first, *rest = parameter_name.split(".")
        if first != "stages":
            return self.depth if first == "norm" else 0
        block = int(rest[2]) if rest[1] == "blocks" else 0
        return sum(self.config.depths[: int(rest[0])]) + block + 1


def _check(config: Config) -> None:
    stages, windows = len(config.depths), windows_per_stage(config)
    for what, values in (("heads", config.heads), ("window", windows)):
        if len(values) != stages:
            raise SettingError(f"a Swin of {stages} stages needs '{what}' for each of them, not {len(values)} values.")
    for stage, heads in enumerate(config.heads):
        if config.width * 2**stage % heads:
            raise SettingError(
                f"{config.width * 2**stage} channels of stage {stage} are not divisible by {heads} heads."
            )
    if min(windows) < 1:
        raise SettingError(f"a window has a side of at least 1, not {min(windows)}.")
    if config.borders not in get_args(Borders):
        raise SettingError(f"there are no borders '{config.borders}'; known are: {', '.join(get_args(Borders))}.")
