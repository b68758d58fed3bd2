"""GPT: "Language models are unsupervised multitask learners" (Radford et al. 2019), a transformer that looks back only.

Tokens get their positions (`embed`), exchange what they know with those before them in a stack of pre-norm blocks
(`encode`), and each then knows what may come next. What was computed of a token never changes when others follow, so
it can be kept (`Cache`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from vitrail.errors import SettingError
from vitrail.nn.attention import Attention, KeyValues
from vitrail.nn.backbone import TextBackbone
from vitrail.nn.features import Features
from vitrail.nn.mlp import Activation, Mlp
from vitrail.nn.norm import LayerNorm
from vitrail.nn.rope import Pairs, Rotation, rotary_1d


@dataclass(frozen=True)
class Config:
    """A GPT's shape.

    Attributes:
        width, depth, heads, mlp: token size D, number of blocks, attention heads, hidden units of the MLP.
        vocabulary: number of different tokens.
        context: most tokens of one input.
        position: learned positions (GPT-2's), or rotary ones (Su et al. 2021).
        rotary_pairs: which features of a head turn together: "neighbours" (the paper, GPT-J) or "halves" (GPT-NeoX).
        rotary_base: the base of the rotations' frequencies.
        activation: of the MLP; GPT-2's is GELU's approximation by tanh.
        dropout: rate in training, of embeddings and of what each branch adds.
        norm_eps: epsilon of every LayerNorm.
    """

    width: int
    depth: int
    heads: int
    mlp: int
    vocabulary: int = 50_257
    context: int = 1024
    position: Literal["learned", "rotary"] = "learned"
    rotary_pairs: Pairs = "neighbours"
    rotary_base: float = 10_000.0
    activation: Activation = "gelu_tanh"
    dropout: float = 0.0
    norm_eps: float = 1e-5


SIZES: dict[str, Config] = {
    # Ours, for a few megabytes of text and a laptop: the CPU recipe of nanoGPT.
    "gpt-nano": Config(128, 4, 4, 512, vocabulary=256, context=64),
    # Radford et al. 2019, table 2; parameters as released.
    "gpt2": Config(768, 12, 12, 3072),
    "gpt2-medium": Config(1024, 24, 16, 4096),
    "gpt2-large": Config(1280, 36, 20, 5120),
    "gpt2-xl": Config(1600, 48, 25, 6400),
}

Cache = tuple[KeyValues, ...]  # of each block


class Block(nn.Module):
    """Pre-norm transformer block whose attention looks back only."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.norm1 = LayerNorm(config.width, eps=config.norm_eps)
        self.attention = Attention(config.width, config.heads, causal=True)
        self.norm2 = LayerNorm(config.width, eps=config.norm_eps)
        self.mlp = Mlp(config.width, config.mlp, activation=config.activation)
        self.drop = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, rotation: Rotation | None = None, cache: KeyValues | None = None) -> Tensor:
        x = x + self.drop(self.attention(self.norm1(x), rotation, cache=cache))
        return x + self.drop(self.mlp(self.norm2(x)))


class GPT(TextBackbone):
    """Token ids ``(B, T)`` to :class:`Features`, whose token t knows the tokens up to t; ``pooled`` is the last one's.

    Raises :class:`SettingError` for a shape that cannot be, such as a width that the heads do not divide.
    """

    config: Config
    projections = ("qkv", "proj")

    def __init__(self, config: Config) -> None:
        super().__init__()
        if config.width % config.heads:
            raise SettingError(f"the width {config.width} is not divisible by {config.heads} heads.")
        self.config = config
        self.token_embedding = nn.Embedding(config.vocabulary, config.width)
        learned = config.position == "learned"
        self.positions = nn.Parameter(torch.empty(config.context, config.width)) if learned else None
        self.drop = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.norm = LayerNorm(config.width, eps=config.norm_eps)
        self._initialise()

    def _initialise(self) -> None:
        """GPT-2's: normal weights of 0.02, positions of 0.01; what a branch adds is less the more branches there are.

        The paper says 1 / √N for N residual layers (section 2.3); its released code leaves that out.
        """
        for name, parameter in self.named_parameters():
            if name.endswith(("proj.weight", "fc2.weight")):
                nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * self.config.depth))
            elif parameter.ndim == 2:
                nn.init.normal_(parameter, std=0.01 if name == "positions" else 0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    @property
    def width(self) -> int:
        """D, the size of ``pooled``."""
        return self.config.width

    @property
    def depth(self) -> int:
        """Number of the last layer for layer-wise learning rates: blocks + 1."""
        return self.config.depth + 1

    def layer(self, parameter_name: str) -> int:
        """The layer a parameter belongs to: 0 for embeddings, i + 1 for block i, `depth` for the final norm."""
        first, *rest = parameter_name.split(".")
        if first == "blocks":
            return int(rest[0]) + 1
        return self.depth if first == "norm" else 0

    def new_cache(self) -> Cache:
        """An empty cache, one entry a block."""
        return tuple(KeyValues() for _ in self.blocks)

    def forward(
        self,
        ids: Tensor,
        segments: Tensor | None = None,
        mask: Tensor | None = None,
        cache: Cache | None = None,
    ) -> Features:
        """Token ids to features; arguments as of `TextBackbone`.

        Args:
            mask: what fills rows up must stand at their end, where no token that counts looks.
            cache: what was computed of the tokens before ``ids``; takes in what is computed now.
        """
        start = 0 if cache is None else len(cache[0])
        tokens = self.encode(self.embed(ids, start), start, cache)
        if mask is None:
            pooled = tokens[:, -1]
        else:
            pooled = tokens[torch.arange(len(ids), device=ids.device), mask.sum(dim=1) - 1]
        return Features(tokens, 0, (ids.shape[1],), pooled, ())

    def embed(self, ids: Tensor, start: int = 0) -> Tensor:
        """Ids ``(B, T)`` of the tokens number ``start`` and on, to tokens ``(B, T, D)`` with their positions.

        Raises :class:`SettingError` for more tokens than the context.
        """
        stop = start + ids.shape[1]
        if stop > self.config.context:
            raise SettingError(f"{stop} tokens are more than this model's context of {self.config.context}; cut them.")
        tokens = self.token_embedding(ids)
        return self.drop(tokens if self.positions is None else tokens + self.positions[start:stop])

    def encode(self, tokens: Tensor, start: int = 0, cache: Cache | None = None) -> Tensor:
        """Tokens to tokens through all blocks and the final norm."""
        rotation, config = None, self.config
        if config.position == "rotary":
            rotation = rotary_1d(
                tokens.shape[1],
                config.width // config.heads,
                config.rotary_base,
                config.rotary_pairs,
                start=start,
                device=tokens.device,
            )
        for number, block in enumerate(self.blocks):
            tokens = block(tokens, rotation, None if cache is None else cache[number])
        return self.norm(tokens)
