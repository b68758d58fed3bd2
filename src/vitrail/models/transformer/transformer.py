"""The Transformer of "Attention is all you need" (Vaswani et al., NIPS 2017, arXiv:1706.03762), which began the line.

An encoder reads a sentence, a decoder writes another one. Places are sines and cosines that are added to the embedded
tokens (section 3.5); norms stand behind each branch (section 3.1). One embedding serves what is read, what is written,
and, turned around, the output (section 3.4).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vitrail.errors import SettingError
from vitrail.nn.attention import Attention
from vitrail.nn.cross_attention import CrossAttention
from vitrail.nn.encoder_decoder import BlockCache, Cache, EncoderDecoder
from vitrail.nn.mlp import Mlp
from vitrail.nn.norm import LayerNorm


@dataclass(frozen=True)
class Config:
    """A Transformer's shape.

    Attributes:
        width, depth, heads, mlp: token size D, blocks of the encoder, attention heads, hidden units of an MLP.
        decoder_depth: blocks of the decoder.
        vocabulary: number of different tokens; the paper's English and German pairs of bytes are about 37,000.
        context: most tokens of one input. No weight depends on it.
        dropout: rate in training, of embeddings and of what each branch adds.
        norm_eps: epsilon of every LayerNorm.
    """

    width: int
    depth: int
    heads: int
    mlp: int
    decoder_depth: int
    vocabulary: int = 37_000
    context: int = 512
    dropout: float = 0.1
    norm_eps: float = 1e-6


SIZES: dict[str, Config] = {
    # Ours, for a few megabytes of text and a laptop.
    "transformer-nano": Config(128, 2, 4, 512, 2, vocabulary=256, context=64, dropout=0.0),
    # Vaswani et al. 2017, table 3; its norms' epsilon is that of the authors' code, tensor2tensor.
    "transformer-base": Config(512, 6, 8, 2048, 6),
    "transformer-big": Config(1024, 6, 16, 4096, 6, dropout=0.3),
}


def sinusoids(start: int, stop: int, width: int, device: torch.device | None = None) -> Tensor:
    """Positions ``(stop - start, width)`` float32 of the places from ``start`` on: sin in even features, cos in odd.

    Both of pair i turn by the place times 10,000^(-2 i / width), i = 0 … (section 3.5).
    """
    frequencies = 10_000.0 ** (torch.arange(0, width, 2, device=device) / -width)
    angles = torch.arange(start, stop, device=device).unsqueeze(1) * frequencies
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)


class Block(nn.Module):
    """Post-norm block: self-attention, in a decoder also a look at what was read, MLP."""

    def __init__(self, config: Config, *, decoder: bool) -> None:
        super().__init__()
        self.attention = Attention(config.width, config.heads, causal=decoder)
        self.norm1 = LayerNorm(config.width, eps=config.norm_eps)
        if decoder:
            self.cross_attention = CrossAttention(config.width, config.heads)
            self.norm_cross = LayerNorm(config.width, eps=config.norm_eps)
        self.mlp = Mlp(config.width, config.mlp, activation="relu")
        self.norm2 = LayerNorm(config.width, eps=config.norm_eps)
        self.drop = nn.Dropout(config.dropout)

    def forward(
        self,
        x: Tensor,
        memory: Tensor | None = None,
        mask: Tensor | None = None,
        cache: BlockCache | None = None,
    ) -> Tensor:
        """``mask`` is ``(B, M)`` bool, of the memory where there is one, else of ``x``."""
        if memory is None:
            own_mask = None if mask is None else mask[:, None, None]
            x = self.norm1(x + self.drop(self.attention(x, mask=own_mask)))
        else:
            own, of_memory = (None, None) if cache is None else cache
            x = self.norm1(x + self.drop(self.attention(x, cache=own)))
            x = self.norm_cross(x + self.drop(self.cross_attention(x, memory, mask, of_memory)))
        return self.norm2(x + self.drop(self.mlp(x)))


class Stack(nn.Module):
    """The blocks of the encoder or of the decoder."""

    def __init__(self, config: Config, depth: int, *, decoder: bool) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(config, decoder=decoder) for _ in range(depth))


class Transformer(EncoderDecoder):
    """Token ids ``(B, T)`` to the encoder's :class:`Features`; with `encode` and `decode`, one text to another.

    Raises :class:`SettingError` for a shape that cannot be: the heads must divide the width, which must be even.
    """

    config: Config

    def __init__(self, config: Config) -> None:
        super().__init__()
        if config.width % config.heads or config.width % 2:
            raise SettingError(f"the width {config.width} must be even and divisible by {config.heads} heads.")
        self.config = config
        self.token_embedding = nn.Embedding(config.vocabulary, config.width)
        self.drop = nn.Dropout(config.dropout)
        self.encoder = Stack(config, config.depth, decoder=False)
        self.decoder = Stack(config, config.decoder_depth, decoder=True)
        self._initialise()

    def _initialise(self) -> None:
        """tensor2tensor's: uniform (Glorot), each of queries, keys and values by itself; embeddings of 1 / √D."""
        nn.init.normal_(self.token_embedding.weight, std=self.config.width**-0.5)
        for block in (*self.encoder.blocks, *self.decoder.blocks):
            for name, linear in block.named_modules():
                if isinstance(linear, nn.Linear):
                    with torch.no_grad():
                        for matrix in linear.weight.chunk({"qkv": 3, "kv": 2}.get(name.rpartition(".")[2], 1)):
                            nn.init.xavier_uniform_(matrix)
                    nn.init.zeros_(linear.bias)

    def embed(self, ids: Tensor, start: int = 0) -> Tensor:
        """Ids ``(B, T)`` of the tokens number ``start`` and on, to tokens ``(B, T, D)`` with their positions.

        Raises :class:`SettingError` for more tokens than the context.
        """
        stop = start + ids.shape[1]
        self.refuse_longer(stop)
        tokens = self.token_embedding(ids) * self.config.width**0.5
        return self.drop(tokens + sinusoids(start, stop, self.config.width, ids.device).to(tokens.dtype))

    def encode(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        x = self.embed(ids)
        for block in self.encoder.blocks:
            x = block(x, mask=mask)
        return x

    def decode(self, ids: Tensor, memory: Tensor, mask: Tensor | None = None, cache: Cache | None = None) -> Tensor:
        x = self.embed(ids, 0 if cache is None else len(cache[0].own))
        for number, block in enumerate(self.decoder.blocks):
            x = block(x, memory, mask, None if cache is None else cache[number])
        return x
