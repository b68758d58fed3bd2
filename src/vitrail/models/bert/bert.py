"""BERT (Devlin et al., NAACL 2019, arXiv:1810.04805) and RoBERTa (Liu et al. 2019, arXiv:1907.11692).

A transformer that looks both ways. Tokens get their positions and the part of the input that they are of (`embed`), and
exchange what they know in a stack of post-norm blocks, as those of the first Transformer (`encode`). What is pooled is
the first token, [CLS], through one more layer. RoBERTa is the same network, trained longer and without segments.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from vitrail.errors import SettingError
from vitrail.nn.attention import Attention
from vitrail.nn.backbone import TextBackbone
from vitrail.nn.features import Features
from vitrail.nn.mlp import Activation, Mlp
from vitrail.nn.norm import LayerNorm


@dataclass(frozen=True)
class Config:
    """A BERT's shape.

    Attributes:
        width, depth, heads, mlp: token size D, number of blocks, attention heads, hidden units of the MLP.
        vocabulary: number of different tokens.
        context: most tokens of one input.
        segments: parts of an input that have an embedding; 1 where they are not told apart (RoBERTa).
        first_position: number of the first token's position; RoBERTa's is 2, and the positions before it are unused.
        pooler: whether ``pooled`` goes through a layer with tanh, or is the first token itself (RoBERTa).
        activation: of the MLP; Google's code has GELU's approximation by tanh, others open its weights with the exact
            one.
        dropout: rate in training, of embeddings and of what each branch adds.
        norm_eps: epsilon of every LayerNorm.
        initial_std: deviation of fresh weights; 0.02 is for a width of about 768, narrow models learn sooner with more.
    """

    width: int
    depth: int
    heads: int
    mlp: int
    vocabulary: int = 30_522
    context: int = 512
    segments: int = 2
    first_position: int = 0
    pooler: bool = True
    activation: Activation = "gelu"
    dropout: float = 0.1
    norm_eps: float = 1e-12
    initial_std: float = 0.02


ROBERTA = {"vocabulary": 50_265, "segments": 1, "first_position": 2, "pooler": False, "norm_eps": 1e-5}

SIZES: dict[str, Config] = {
    # Ours, for a few megabytes of text and a laptop.
    "bert-nano": Config(128, 4, 4, 512, vocabulary=256, context=64, dropout=0.0, initial_std=0.05),
    # Devlin et al. 2019, section 3; the vocabulary is that of the uncased models.
    "bert-base": Config(768, 12, 12, 3072),
    "bert-large": Config(1024, 24, 16, 4096),
    # Liu et al. 2019, sections 4.4 and 5.
    "roberta-base": Config(768, 12, 12, 3072, **ROBERTA),  # type: ignore[arg-type]
    "roberta-large": Config(1024, 24, 16, 4096, **ROBERTA),  # type: ignore[arg-type]
}


class Block(nn.Module):
    """Post-norm transformer block: the norm comes after the sum (Vaswani et al. 2017, section 3.1)."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.attention = Attention(config.width, config.heads)
        self.norm1 = LayerNorm(config.width, eps=config.norm_eps)
        self.mlp = Mlp(config.width, config.mlp, activation=config.activation)
        self.norm2 = LayerNorm(config.width, eps=config.norm_eps)
        self.drop = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        x = self.norm1(x + self.drop(self.attention(x, mask=mask)))
        return self.norm2(x + self.drop(self.mlp(x)))


class BERT(TextBackbone):
    """Token ids ``(B, T)`` to :class:`Features`, whose tokens know of each other; ``pooled`` is of the first one.

    Raises :class:`SettingError` for a shape that cannot be, such as a width that the heads do not divide.
    """

    config: Config
    projections = ("qkv", "proj")
    layer_decay = 0.9

    def __init__(self, config: Config) -> None:
        super().__init__()
        if config.width % config.heads:
            raise SettingError(f"the width {config.width} is not divisible by {config.heads} heads.")
        self.config = config
        self.token_embedding = nn.Embedding(config.vocabulary, config.width)
        self.positions = nn.Parameter(torch.empty(config.first_position + config.context, config.width))
        self.segments = nn.Parameter(torch.empty(config.segments, config.width))
        self.norm = LayerNorm(config.width, eps=config.norm_eps)
        self.drop = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.pooler = nn.Linear(config.width, config.width) if config.pooler else None
        initialise(self, config.initial_std)

    @property
    def width(self) -> int:
        """D, the size of ``pooled``."""
        return self.config.width

    @property
    def depth(self) -> int:
        """Number of the last layer for layer-wise learning rates: blocks + 1, the pooler's."""
        return self.config.depth + 1

    def layer(self, parameter_name: str) -> int:
        """The layer a parameter belongs to: 0 for what embeds, i + 1 for block i, `depth` for the pooler."""
        first, *rest = parameter_name.split(".")
        if first == "blocks":
            return int(rest[0]) + 1
        return self.depth if first == "pooler" else 0

    def leave_out_pooler(self) -> None:
        """From now on what is pooled is the first token itself, as where ``config.pooler`` is False."""
        self.pooler, self.config = None, replace(self.config, pooler=False)

    def forward(self, ids: Tensor, segments: Tensor | None = None, mask: Tensor | None = None) -> Features:
        """Token ids to features; arguments as of `TextBackbone`. What only fills a row up stands at its end.

        Every row needs a token that counts. What comes out for the others means nothing.
        """
        tokens = self.encode(self.embed(ids, segments), mask)
        pooled = tokens[:, 0] if self.pooler is None else self.pooler(tokens[:, 0]).tanh()
        return Features(tokens, 0, (ids.shape[1],), pooled, ())

    def embed(self, ids: Tensor, segments: Tensor | None = None) -> Tensor:
        """Ids ``(B, T)`` to normalised tokens ``(B, T, D)`` with positions and segments, the first one where None.

        Raises :class:`SettingError` for more tokens than the context.
        """
        length, first = ids.shape[1], self.config.first_position
        if length > self.config.context:
            raise SettingError(
                f"{length} tokens are more than this model's context of {self.config.context}; cut them."
            )
        told_apart = segments is not None and self.config.segments > 1
        part = self.segments[segments] if told_apart else self.segments[0]
        return self.drop(self.norm(self.token_embedding(ids) + self.positions[first : first + length] + part))

    def encode(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """Tokens to tokens through all blocks; ``mask (B, T)`` is False for what no token looks at."""
        seen = None if mask is None else mask[:, None, None, :]
        for block in self.blocks:
            tokens = block(tokens, seen)
        return tokens


def initialise(module: nn.Module, std: float) -> None:
    """BERT's: normal weights without what is beyond two deviations, biases of 0; norms stay as they are."""
    for parameter in module.parameters():
        if parameter.ndim > 1:
            nn.init.trunc_normal_(parameter, std=std, a=-2 * std, b=2 * std)
    for child in module.modules():
        if isinstance(child, nn.Linear) and child.bias is not None:
            nn.init.zeros_(child.bias)
