"""iGPT: "Generative pretraining from pixels" (Chen et al., ICML 2020), GPT-2 that reads an image pixel by pixel.

Each pixel becomes the number of the nearest colour of a palette (`numbers`), the numbers, row by row, become tokens
(`embed`), and a stack of pre-norm blocks works on them (`encode`). Trained to say which colour comes next, or which one
is hidden, it ends up knowing what is in the picture, and knows it best in its middle: `forward` gives the features of
one layer, and computes no further.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from vitrail.errors import SettingError
from vitrail.nn.attention import Attention, KeyValues
from vitrail.nn.backbone import PlainTransformer
from vitrail.nn.features import Features
from vitrail.nn.mlp import Activation, Mlp
from vitrail.nn.norm import LayerNorm
from vitrail.nn.position import Resampling, resample_positions

LUMA = (0.299, 0.587, 0.114)  # of red, green and blue (ITU-R BT.601), as images become grey elsewhere
PIXELS_AT_ONCE = 16_384  # whose distances to all colours are in memory together


@dataclass(frozen=True)
class Config:
    """An iGPT's shape.

    Attributes:
        width, depth, heads, mlp: token size D, number of blocks, attention heads, hidden units of the MLP.
        image_size: height and width in pixels, each of which is a token.
        channels: 1 for grey images, 3 for RGB.
        colours: K, how many the palette has.
        causal: whether a token sees itself and those before it only, and there is a start token; False for a model
            that was trained on hidden pixels (the paper's "BERT").
        shift: whether the tokens of a causal model are moved on by one place behind the start token, so that each
            knows the pixels before its own; Transformers' classifier leaves them in their places.
        feature_layer: l, whose tokens are the features, as the attention of block l reads them (section 3.3); the
            number of blocks for those behind the last one, None for the middle.
        norm: divided by the root mean square, with a factor alone (the paper's), or LayerNorm.
        residual: what a block adds to: its input, or (in teddykoker's image-gpt) its input as normalised.
        activation: of the MLP.
        bias: whether linear maps have biases (not in the paper; Transformers' have, and they begin at zero).
        dropout: rate in training, of embeddings and of what each branch adds.
        norm_eps: epsilon of every norm.
    """

    width: int
    depth: int
    heads: int
    mlp: int
    image_size: tuple[int, int] = (32, 32)
    channels: int = 3
    colours: int = 512
    causal: bool = True
    shift: bool = True
    feature_layer: int | None = None
    norm: Literal["rms", "layer"] = "rms"
    residual: Literal["tokens", "normed"] = "tokens"
    activation: Activation = "quick_gelu"
    bias: bool = False
    dropout: float = 0.0
    norm_eps: float = 1e-5


SIZES: dict[str, Config] = {
    # Ours, for images of up to 32 pixels and a laptop.
    "igpt-nano": Config(128, 4, 4, 512, image_size=(16, 16), colours=64),
    # S, M and L: Chen et al. 2020, section 3.4 and the released checkpoints, at 32 pixels (L also at 48).
    "igpt-s": Config(512, 24, 8, 2048),
    "igpt-m": Config(1024, 36, 8, 4096),
    "igpt-l": Config(1536, 48, 16, 6144),
}

Cache = tuple[KeyValues, ...]  # of each block


def norm(config: Config) -> nn.Module:
    """The norm of a config, over the features of a token."""
    if config.norm == "layer":
        return LayerNorm(config.width, eps=config.norm_eps)
    return nn.RMSNorm(config.width, eps=config.norm_eps)


class Block(nn.Module):
    """Pre-norm transformer block (section 3.2)."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.norm1 = norm(config)
        self.attention = Attention(
            config.width, config.heads, qkv_bias=config.bias, proj_bias=config.bias, causal=config.causal
        )
        self.norm2 = norm(config)
        self.mlp = Mlp(config.width, config.mlp, activation=config.activation, bias=config.bias)
        self.drop = nn.Dropout(config.dropout)
        self.normed = config.residual == "normed"

    def forward(self, x: Tensor, cache: KeyValues | None = None) -> Tensor:
        y = self.norm1(x)
        x = (y if self.normed else x) + self.drop(self.attention(y, cache=cache))
        return x + self.drop(self.mlp(self.norm2(x)))


class IGPT(PlainTransformer):
    """Images ``(B, C, H, W)`` float, of -1 … 1, to :class:`Features` of one layer with one map, a place a pixel.

    Raises :class:`SettingError` for a shape that cannot be, such as a width that the heads do not divide.
    """

    config: Config
    palette: Tensor

    def __init__(self, config: Config) -> None:
        super().__init__()
        if config.width % config.heads:
            raise SettingError(f"the width {config.width} is not divisible by {config.heads} heads.")
        if config.colours < 2:
            raise SettingError(f"a palette needs at least 2 colours, not {config.colours}.")
        self.config = config
        self.lag = int(config.causal and config.shift)
        self.feature_layer = config.depth // 2 if config.feature_layer is None else config.feature_layer
        if not 0 <= self.feature_layer <= config.depth:
            raise SettingError(f"the features are those of layer 0 to {config.depth}, not {self.feature_layer}.")
        self.register_buffer("palette", lattice(config.colours, config.channels))
        self.positions = nn.Parameter(torch.empty(1, math.prod(config.image_size), config.width))
        self.colour_embedding = nn.Embedding(config.colours + config.causal, config.width)  # the last one: the start
        self.drop = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.norm = norm(config)
        self._initialise()

    def _initialise(self) -> None:
        """As the released code does: normal weights, of which those that end a branch are small."""
        width = self.config.width
        for name, parameter in self.named_parameters():
            if name.endswith("qkv.weight"):
                nn.init.normal_(parameter, std=width**-0.5)
            elif name.endswith("proj.weight"):
                nn.init.normal_(parameter, std=(width * self.config.depth) ** -0.5)
            elif parameter.ndim > 1:
                nn.init.normal_(parameter, std=0.01 if name == "positions" else 0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def forward(self, images: Tensor) -> Features:
        tokens = self.embed(self.numbers(images))
        for block in self.blocks[: self.feature_layer]:
            tokens = block(tokens)
        last = self.feature_layer == self.config.depth
        read: Any = self.norm if last else self.blocks[self.feature_layer].norm1
        tokens = read(tokens)
        feature_map = tokens.transpose(1, 2).unflatten(2, self.config.image_size)
        return Features(tokens, 0, self.config.image_size, tokens.mean(dim=1), (feature_map,))

    @torch.no_grad()
    def numbers(self, images: Tensor) -> Tensor:
        """Images ``(B, C, H, W)`` to the number of the nearest colour for each pixel, ``(B, H · W)`` int64.

        Raises :class:`SettingError` for images of another size.
        """
        size = (images.shape[-2], images.shape[-1])
        if size != self.config.image_size:
            raise SettingError(
                "this model reads images of {}x{} pixels, not {}x{}.".format(*self.config.image_size, *size)
            )
        pixels = images.permute(0, 2, 3, 1).reshape(-1, self.config.channels)
        return nearest(pixels, self.palette).view(images.shape[0], -1)

    def images(self, numbers: Tensor) -> Tensor:
        """The opposite of `numbers`: ``(B, H · W)`` to images ``(B, C, H, W)`` of -1 … 1."""
        return self.palette[numbers].unflatten(1, self.config.image_size).permute(0, 3, 1, 2)

    def embed(self, numbers: Tensor, hidden: Tensor | None = None) -> Tensor:
        """Numbers of colours ``(B, N)`` to tokens ``(B, N, D)`` with their positions, behind the start if they shift.

        Where ``hidden`` ``(B, N)`` bool is True, a token says where it is and not what.
        """
        tokens = self.colour_embedding(numbers)
        if hidden is not None:
            tokens = tokens.masked_fill(hidden.unsqueeze(-1), 0)
        if self.config.causal and self.config.shift:
            tokens = torch.cat([self.start(numbers.shape[0]), tokens[:, :-1]], dim=1)
        return self.drop(tokens + self.positions)

    def start(self, count: int) -> Tensor:
        """The start token, without its position, for each of so many images: ``(count, 1, D)``."""
        return self.colour_embedding.weight[-1].expand(count, 1, -1)

    def encode(self, tokens: Tensor, cache: Cache | None = None) -> Tensor:
        """Tokens to tokens through all blocks and the final norm; ``cache`` holds what came before, and takes these."""
        for number, block in enumerate(self.blocks):
            tokens = block(tokens, None if cache is None else cache[number])
        return self.norm(tokens)

    def new_cache(self) -> Cache:
        """An empty cache, one entry a block."""
        return tuple(KeyValues() for _ in self.blocks)

    def reads(self, parameter_name: str) -> bool:
        """Whether `forward` depends on a parameter, which it does up to the layer of the features."""
        used = f"blocks.{self.feature_layer}.norm1." if self.feature_layer < self.config.depth else "norm."
        return self.layer(parameter_name) <= self.feature_layer or parameter_name.startswith(used)

    def adapted(self, weights: dict[str, Tensor], before: Config, resampling: Resampling) -> dict[str, Tensor]:
        """Weights of an iGPT of another image size or number of channels: other positions, grey or repeated colours."""
        positions = resample_positions(weights["positions"], before.image_size, self.config.image_size, resampling)
        palette = weights["palette"]
        if before.channels != self.config.channels:
            shares = LUMA if before.channels == 3 else (1 / before.channels,) * before.channels
            palette = (palette @ palette.new_tensor(shares)).unsqueeze(1).repeat(1, self.config.channels)
        return weights | {"positions": positions, "palette": palette}


def nearest(pixels: Tensor, palette: Tensor) -> Tensor:
    """The number of the colour ``(K, C)`` that is nearest to each pixel ``(M, C)``: ``(M,)`` int64.

    In float32, whatever the model computes in; of two that are equally near, the first.
    """
    # an exported program has no loop as long as its batch
    parts = [pixels] if torch.compiler.is_exporting() else pixels.split(PIXELS_AT_ONCE)
    return torch.cat([_squared_distances(part.float(), palette.float()).argmin(dim=1) for part in parts])


def _squared_distances(pixels: Tensor, palette: Tensor) -> Tensor:
    """Of each pixel ``(M, C)`` to each colour ``(K, C)``: ``(M, K)``.

    Differences, not products, which are less exact, and of which automatic precision would make bfloat16; channel by
    channel in operations that every runtime has.
    """
    total = torch.zeros((), device=pixels.device)
    for pixel, colour in zip(pixels.unbind(1), palette.unbind(1), strict=True):
        total = total + (pixel.unsqueeze(1) - colour).square()
    return total


def lattice(colours: int, channels: int) -> Tensor:
    """``(K, C)`` colours spread evenly over -1 … 1: a palette for before there is one."""
    side = math.ceil(colours ** (1 / channels) - 1e-9)
    points = torch.cartesian_prod(*[torch.linspace(-1, 1, side)] * channels).view(-1, channels)
    return points[torch.linspace(0, len(points) - 1, colours).round().long()].contiguous()
