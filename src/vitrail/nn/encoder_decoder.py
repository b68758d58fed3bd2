"""What every encoder-decoder of text is: one half reads a text, the other writes one and looks at what was read."""

from __future__ import annotations

from abc import abstractmethod
from typing import NamedTuple, Protocol

from torch import Tensor, nn

from vitrail.errors import SettingError
from vitrail.nn.attention import KeyValues
from vitrail.nn.backbone import TextBackbone, TextConfig
from vitrail.nn.features import Features


class BlockCache(NamedTuple):
    """What a block of the decoder need not compute twice.

    Attributes:
        own: keys and values of the tokens written so far.
        memory: those of the encoder's tokens.
    """

    own: KeyValues
    memory: KeyValues


Cache = tuple[BlockCache, ...]  # of each block of the decoder


def new_cache(blocks: int) -> Cache:
    """An empty cache for so many blocks."""
    return tuple(BlockCache(KeyValues(), KeyValues()) for _ in range(blocks))


def select(cache: Cache, rows: Tensor) -> None:
    """Keep these rows ``(B',)`` of the batch, in this order; a row may be taken more than once."""
    for block in cache:
        block.own.select(rows)
        block.memory.select(rows)


class EncoderDecoderConfig(TextConfig, Protocol):
    """The settings that the config of every encoder-decoder has."""

    @property
    def width(self) -> int:
        """D, the size of a token."""

    @property
    def depth(self) -> int:
        """Blocks of the encoder."""

    @property
    def decoder_depth(self) -> int:
        """Blocks of the decoder; 0 for an encoder alone."""


class EncoderDecoder(TextBackbone):
    """Two stacks of blocks, ``encoder.blocks`` and ``decoder.blocks``, over one embedding of the tokens.

    Called like any model of text it reads: `forward` gives the encoder's features, pooled by their mean.

    Attributes:
        tied: whether its paper's output layer is the embedding of the tokens.
        output_scale: what the decoder's tokens are multiplied by before they are compared with the embedding.
    """

    config: EncoderDecoderConfig
    projections = ("qkv", "q", "kv", "proj")
    tied: bool = True
    output_scale: float = 1.0
    token_embedding: nn.Embedding

    @property
    def width(self) -> int:
        """D, the size of ``pooled``."""
        return self.config.width

    @property
    def depth(self) -> int:
        """Number of the last layer for layer-wise learning rates: the blocks of both stacks + 1."""
        return self.config.depth + self.config.decoder_depth + 1

    def layer(self, parameter_name: str) -> int:
        """The layer a parameter belongs to: 0 for embeddings, then the blocks of the encoder, then the decoder's.

        What stands before the decoder's blocks, and the encoder's last norm, go with the first of these.
        """
        stack, *rest = parameter_name.split(".")
        if stack not in ("encoder", "decoder"):
            return 0
        before = 0 if stack == "encoder" else self.config.depth
        if rest[0] == "blocks":
            return before + int(rest[1]) + 1
        if rest[0] == "norm":
            return self.depth if stack == "decoder" else self.config.depth + 1
        return 0 if stack == "encoder" else before + 1

    def forward(self, ids: Tensor, segments: Tensor | None = None, mask: Tensor | None = None) -> Features:
        """Token ids to the encoder's features; arguments as of `TextBackbone`."""
        tokens = self.encode(ids, mask)
        return Features(tokens, 0, (ids.shape[1],), mean_of_counting(tokens, mask), ())

    @abstractmethod
    def encode(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """What is read, ``(B, M)`` int64, to the encoder's tokens ``(B, M, D)``; ``mask`` as of `forward`."""

    @abstractmethod
    def decode(self, ids: Tensor, memory: Tensor, mask: Tensor | None = None, cache: Cache | None = None) -> Tensor:
        """What is written so far, ``(B, N)`` int64, to the decoder's tokens ``(B, N, D)``; each looks back only.

        Args:
            memory: the encoder's tokens ``(B, M, D)``.
            mask: ``(B, M)`` bool, False for what of the memory only fills a row up.
            cache: what was computed of the tokens before ``ids``; takes in what is computed now.
        """

    def new_cache(self) -> Cache:
        """An empty cache for `decode`."""
        return new_cache(self.config.decoder_depth)

    def refuse_longer(self, length: int) -> None:
        """Raises :class:`SettingError` for more tokens than the context."""
        if length > self.config.context:
            raise SettingError(
                f"{length} tokens are more than this model's context of {self.config.context}; cut them."
            )


def mean_of_counting(tokens: Tensor, mask: Tensor | None) -> Tensor:
    """The mean ``(B, D)`` of the tokens ``(B, T, D)`` that count."""
    if mask is None:
        return tokens.mean(dim=1)
    weight = mask.unsqueeze(-1).to(tokens.dtype)
    return (tokens * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=1)
