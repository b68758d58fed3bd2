"""T2T-ViT: "Tokens-to-Token ViT: Training Vision Transformers from Scratch on ImageNet" (Yuan et al., ICCV 2021,
arXiv:2101.11986).

A vision transformer whose patches overlap and are merged in three steps, with attention in between, so that edges and
textures that cross a patch's border are seen (`tokens.TokensToToken`); and whose backbone is deeper and narrower.
Every LayerNorm has PyTorch's epsilon, 1e-5.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from vitrail.errors import SettingError
from vitrail.models.t2t.tokens import SPLITS, TokensToToken, grids, restructured
from vitrail.nn.attention import Attention
from vitrail.nn.backbone import PlainTransformer
from vitrail.nn.drop import DropPath, drop_path_rates
from vitrail.nn.features import Features
from vitrail.nn.mlp import Mlp
from vitrail.nn.patch import resample_channels
from vitrail.nn.position import Resampling, resample_positions


@dataclass(frozen=True)
class Config:
    """The shape of a T2T-ViT.

    Attributes:
        width, depth, heads, mlp: token size D, number of blocks, attention heads, hidden units of the MLP.
        token_attention: attention in the tokens-to-token module: the Performer's, linear in the tokens, or the
            transformer's ("T2T-ViT_t"), which takes more time and memory and is a little more accurate.
        token_width: channels of the tokens within that module.
        image_size: height and width in pixels; fixes the grid that the positions are computed for, and images of
            another size take theirs from it.
        channels: 1 for grey images, 3 for RGB.
        dropout, drop_path: rates in training, of the backbone; drop-path grows linearly with depth.
    """

    width: int
    depth: int
    heads: int
    mlp: int
    token_attention: Literal["performer", "transformer"] = "performer"
    token_width: int = 64
    image_size: tuple[int, int] = (224, 224)
    channels: int = 3
    dropout: float = 0.0
    drop_path: float = 0.0


SIZES: dict[str, Config] = {  # table 1, and the authors' code
    "t2t-7": Config(256, 7, 4, 512),
    "t2t-10": Config(256, 10, 4, 512),
    "t2t-12": Config(256, 12, 4, 512),
    "t2t-14": Config(384, 14, 6, 1152),
    "t2t-19": Config(448, 19, 7, 1344),
    "t2t-24": Config(512, 24, 8, 1536),
    "t2t-t-14": Config(384, 14, 6, 1152, "transformer"),
    "t2t-t-19": Config(448, 19, 7, 1344, "transformer"),
    "t2t-t-24": Config(512, 24, 8, 1536, "transformer"),
}


class Block(nn.Module):
    """Pre-norm transformer block without biases in queries, keys and values (eq. 5)."""

    def __init__(self, config: Config, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.width)
        self.attention = Attention(config.width, config.heads, qkv_bias=False)
        self.norm2 = nn.LayerNorm(config.width)
        self.mlp = Mlp(config.width, config.mlp, dropout=config.dropout)
        self.drop = nn.Dropout(config.dropout)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.drop(self.attention(self.norm1(x))))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class T2TViT(PlainTransformer):
    """Images ``(B, C, H, W)`` float, normalised, to :class:`Features` with one map at a sixteenth of the resolution.

    Raises :class:`SettingError` for a shape that cannot be, such as a width that the heads do not divide.
    """

    config: Config
    projections = ("qkv", "kqv", "proj")
    class_tokens = 1

    def __init__(self, config: Config) -> None:
        super().__init__()
        if config.width % config.heads:
            raise SettingError(f"the width {config.width} is not divisible by {config.heads} heads.")
        self.config = config
        self.grid = grids(config.image_size)[-1]
        self.tokens_to_token = TokensToToken(config.token_attention, config.channels, config.token_width, config.width)
        first_map = "kqv" if config.token_attention == "performer" else "qkv"
        self.input_kernel = f"tokens_to_token.attention1.{first_map}.weight"
        self.class_token = nn.Parameter(torch.empty(1, 1, config.width))
        self.positions: Tensor  # not trained, and yet weights: those of another image size are resampled, not computed
        self.register_buffer("positions", sinusoid(1 + self.grid[0] * self.grid[1], config.width)[None])
        self.drop = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config, rate) for rate in drop_path_rates(config.drop_path, config.depth))
        self.norm = nn.LayerNorm(config.width)
        self._initialise()

    def _initialise(self) -> None:
        """As the authors' code: small linear maps and class token, zero biases."""
        nn.init.trunc_normal_(self.class_token, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, images: Tensor) -> Features:
        tokens, grid = self.embed(images)
        return self.features(self.encode(tokens), grid)

    def embed(self, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Images to tokens ``(B, 1 + h · w, D)`` with their positions, and the grid ``(h, w)`` (eq. 5, first line)."""
        x, grid = self.tokens_to_token(images)
        x = torch.cat([self.class_token.expand(x.shape[0], -1, -1), x], dim=1)
        return self.drop(x + resample_positions(self.positions, self.grid, grid, "bicubic")), grid

    def encode(self, tokens: Tensor) -> Tensor:
        """Tokens to tokens through all blocks and the final norm (eq. 5)."""
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm(tokens)

    def features(self, tokens: Tensor, grid: tuple[int, int]) -> Features:
        """Encoded tokens to what a head reads: the class token's vector and the feature map."""
        return Features(tokens, 1, grid, tokens[:, 0], (restructured(tokens[:, 1:], grid),))

    def adapted(self, weights: dict[str, Tensor], before: Config, resampling: Resampling) -> dict[str, Tensor]:
        """Weights of a T2T-ViT of another image size or number of channels, resampled to this one's."""
        grid = grids(before.image_size)[-1]
        positions = resample_positions(weights["positions"], grid, self.grid, resampling)
        return weights | self._for_channels(weights, before.channels) | {"positions": positions}

    def _for_channels(self, weights: dict[str, Tensor], before: int) -> dict[str, Tensor]:
        """What reads the image, here a norm and a linear map of whole windows, for this model's number of channels.

        The map keeps its sum over the channels, as any kernel does, and the norm its mean.
        """
        after, norm = self.config.channels, "tokens_to_token.attention1.norm1."
        kernel = windows_for_channels(weights[self.input_kernel], before, after)
        if self.config.token_attention == "transformer":  # which divides q kᵀ by the root of the window's size
            queries, others = kernel.tensor_split([self.config.token_width])
            kernel = torch.cat([queries * math.sqrt(after / before), others])
        return {self.input_kernel: kernel} | {
            name: windows_for_channels(weights[name], before, after) * (after / before)
            for name in (norm + "weight", norm + "bias")
        }


def sinusoid(count: int, width: int) -> Tensor:
    """Positions ``(count, width)`` float32: sines and cosines in turn (Vaswani et al. 2017, section 3.5).

    Here the class token has position 0, and the patches, row by row, those that follow.
    """
    frequencies = 10_000.0 ** -(torch.arange(0, width, 2, dtype=torch.float64) / width)
    angles = torch.arange(count).double()[:, None] * frequencies
    return torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1)[:, :width].float()


def windows_for_channels(values: Tensor, before: int, after: int) -> Tensor:
    """One value for each number in a window, ``(…, before · k · k)``, for ``after`` channels, their sum kept."""
    k = SPLITS[0].kernel
    resampled = resample_channels(values.reshape(-1, before, k, k), after)
    return resampled.reshape(*values.shape[:-1], after * k * k)
