"""T5: "Exploring the limits of transfer learning with a unified text-to-text transformer" (Raffel et al., JMLR 2020,
arXiv:1910.10683), and its version 1.1.

An encoder reads a text, a decoder writes one. Tokens have no positions of their own: how far apart two of them are adds
a learned number to their attention (section 2.1). Norms have a gain only, linear maps no biases, and attention is not
scaled. Version 1.1 gates its MLPs with GELU (Shazeer 2020, arXiv:2002.05202) and has an output layer of its own, which
is the objective's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from vitrail.nn.attention import Attention
from vitrail.nn.cross_attention import CrossAttention
from vitrail.nn.encoder_decoder import BlockCache, Cache, EncoderDecoder
from vitrail.nn.mlp import ACTIVATIONS, Activation


@dataclass(frozen=True)
class Config:
    """A T5's shape.

    Attributes:
        width, depth, heads, mlp: token size D, blocks of the encoder, attention heads, hidden units of an MLP.
        decoder_depth: blocks of the decoder; 0 for an encoder alone.
        head_width: features of a head, which need not be D / heads.
        vocabulary: number of different tokens.
        context: most tokens of one input. No weight depends on it; the published ones were trained at 512.
        activation, gated: of the MLP: ReLU, or in version 1.1 GELU by tanh of one half, times the other half.
        buckets, max_distance: of distances between tokens, and from where on all are the same.
        dropout: rate in training, of embeddings, in the MLPs and of what each branch adds.
        norm_eps: epsilon of every norm.
    """

    width: int
    depth: int
    heads: int
    mlp: int
    decoder_depth: int
    head_width: int = 64
    vocabulary: int = 32_128
    context: int = 512
    activation: Activation = "relu"
    gated: bool = False
    buckets: int = 32
    max_distance: int = 128
    dropout: float = 0.0
    norm_eps: float = 1e-6


def _gated(width: int, depth: int, heads: int, mlp: int) -> Config:
    return Config(width, depth, heads, mlp, depth, activation="gelu_tanh", gated=True)


SIZES: dict[str, Config] = {
    # Ours, for a few megabytes of text and a laptop; of version 1.1, which learns faster there.
    "t5-nano": replace(_gated(128, 2, 4, 320), head_width=32, vocabulary=256, context=64),
    # Raffel et al. 2020, section 3.7; parameters as released.
    "t5-small": Config(512, 6, 8, 2048, 6),
    "t5-base": Config(768, 12, 12, 3072, 12),
    "t5-large": Config(1024, 24, 16, 4096, 24),
    "t5-3b": Config(1024, 24, 32, 16_384, 24, head_width=128),
    "t5-11b": Config(1024, 24, 128, 65_536, 24, head_width=128),
    # Version 1.1, as the authors released it; also the sizes of Flan-T5.
    "t5-v1_1-small": _gated(512, 8, 6, 1024),
    "t5-v1_1-base": _gated(768, 12, 12, 2048),
    "t5-v1_1-large": _gated(1024, 24, 16, 2816),
    "t5-v1_1-xl": _gated(2048, 24, 32, 5120),
    "t5-v1_1-xxl": _gated(4096, 24, 64, 10_240),
}


class DistanceBias(nn.Module):
    """A learned number for every head and bucket of distances, which all blocks of a stack add to their attention."""

    def __init__(self, config: Config, *, both_ways: bool) -> None:
        super().__init__()
        self.both_ways = both_ways
        self.max_distance = config.max_distance
        self.table = nn.Parameter(torch.empty(config.buckets, config.heads))

    def forward(self, queries: int, keys: int) -> Tensor:
        """The bias ``(1, heads, N, M)`` of the last N of M tokens, which look at all of them."""
        places = torch.arange(keys, device=self.table.device)
        distances = places[None, :] - places[keys - queries :, None]
        bucket = distance_bucket(distances, len(self.table), self.max_distance, both_ways=self.both_ways)
        return self.table[bucket].permute(2, 0, 1).unsqueeze(0)


def distance_bucket(distances: Tensor, buckets: int, max_distance: int, *, both_ways: bool) -> Tensor:
    """The bucket of each distance, of the same shape, int64.

    Half of the buckets are one distance each, the others grow with its logarithm up to ``max_distance``, beyond which
    all are in the last one (section 2.1, and Mesh TensorFlow's `_relative_position_bucket`).

    Args:
        distances: int64, the place of the token that is looked at less that of the one that looks.
        both_ways: whether what comes later has buckets of its own; else it counts as distance 0.
    """
    first: Tensor | int = 0
    if both_ways:
        buckets //= 2
        first = (distances > 0) * buckets
        distances = distances.abs()
    else:
        distances = (-distances).clamp(min=0)
    exact = buckets // 2
    growth = torch.log(distances.clamp(min=1).float() / exact) / math.log(max_distance / exact)
    far = (exact + (growth * (buckets - exact)).long()).clamp(max=buckets - 1)
    return first + torch.where(distances < exact, distances, far)


class FeedForward(nn.Module):
    """The MLP without biases, ``(…, D)`` to ``(…, D)``; gated: one linear map, activated, times another."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.width, config.mlp, bias=False)
        self.gate = nn.Linear(config.width, config.mlp, bias=False) if config.gated else None
        self.act = ACTIVATIONS[config.activation]()
        self.drop = nn.Dropout(config.dropout)
        self.fc2 = nn.Linear(config.mlp, config.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.fc1(x)
        hidden = self.act(hidden) if self.gate is None else self.act(self.gate(x)) * hidden
        return self.fc2(self.drop(hidden))


class Block(nn.Module):
    """Pre-norm block: self-attention, in a decoder also a look at what was read, MLP."""

    def __init__(self, config: Config, *, decoder: bool) -> None:
        super().__init__()
        width, heads, head_width = config.width, config.heads, config.head_width
        self.norm1 = nn.RMSNorm(width, eps=config.norm_eps)
        self.attention = Attention(
            width, heads, qkv_bias=False, head_width=head_width, proj_bias=False, causal=decoder, scale=1.0
        )
        if decoder:
            self.norm_cross = nn.RMSNorm(width, eps=config.norm_eps)
            self.cross_attention = CrossAttention(width, heads, bias=False, head_width=head_width, scale=1.0)
        self.norm2 = nn.RMSNorm(width, eps=config.norm_eps)
        self.mlp = FeedForward(config)
        self.drop = nn.Dropout(config.dropout)

    def forward(
        self,
        x: Tensor,
        bias: Tensor,
        memory: Tensor | None = None,
        mask: Tensor | None = None,
        cache: BlockCache | None = None,
    ) -> Tensor:
        """``bias`` is added to the self-attention; ``memory``, its ``mask`` and the ``cache`` are a decoder's."""
        own = None if cache is None else cache.own
        x = x + self.drop(self.attention(self.norm1(x), mask=bias, cache=own))
        if memory is not None:
            of_memory = None if cache is None else cache.memory
            x = x + self.drop(self.cross_attention(self.norm_cross(x), memory, mask, of_memory))
        return x + self.drop(self.mlp(self.norm2(x)))


class Stack(nn.Module):
    """The blocks of the encoder or of the decoder, with the bias before and the norm behind them."""

    def __init__(self, config: Config, depth: int, *, decoder: bool) -> None:
        super().__init__()
        self.distance_bias = DistanceBias(config, both_ways=not decoder)
        self.blocks = nn.ModuleList(Block(config, decoder=decoder) for _ in range(depth))
        self.norm = nn.RMSNorm(config.width, eps=config.norm_eps)
        self.drop = nn.Dropout(config.dropout)


class T5(EncoderDecoder):
    """Token ids ``(B, T)`` to the encoder's :class:`Features`; with `encode` and `decode`, one text to another."""

    config: Config

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.tied = not config.gated
        self.output_scale = config.width**-0.5
        self.token_embedding = nn.Embedding(config.vocabulary, config.width)
        self.encoder = Stack(config, config.depth, decoder=False)
        self.decoder = Stack(config, config.decoder_depth, decoder=True) if config.decoder_depth else None
        self._initialise()

    def _initialise(self) -> None:
        """Mesh TensorFlow's: normal, so that what comes out of each map has the size of what goes in.

        As attention is not scaled, queries are smaller by the root of the head's width.
        """
        width, inner = self.config.width, self.config.heads * self.config.head_width
        nn.init.normal_(self.token_embedding.weight, std=1.0)
        for name, parameter in self.named_parameters():
            if name.endswith("table"):
                nn.init.normal_(parameter, std=width**-0.5)
            elif name.endswith((".qkv.weight", ".q.weight")):  # of the first, the queries come first
                nn.init.normal_(parameter, std=width**-0.5)
                with torch.no_grad():
                    parameter[:inner] *= self.config.head_width**-0.5
            elif parameter.ndim == 2 and name != "token_embedding.weight":
                nn.init.normal_(parameter, std=parameter.shape[1] ** -0.5)

    def encode(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        self.refuse_longer(ids.shape[1])
        stack = self.encoder
        bias = stack.distance_bias(ids.shape[1], ids.shape[1])
        if mask is not None:
            bias = bias.masked_fill(~mask[:, None, None], float("-inf"))
        x = stack.drop(self.token_embedding(ids))
        for block in stack.blocks:
            x = block(x, bias)
        return stack.drop(stack.norm(x))

    def decode(self, ids: Tensor, memory: Tensor, mask: Tensor | None = None, cache: Cache | None = None) -> Tensor:
        stack = self.decoder
        assert stack is not None, "an encoder alone does not decode"
        length = ids.shape[1] + (0 if cache is None else len(cache[0].own))
        self.refuse_longer(length)
        bias = stack.distance_bias(ids.shape[1], length)
        x = stack.drop(self.token_embedding(ids))
        for number, block in enumerate(stack.blocks):
            x = block(x, bias, memory, mask, None if cache is None else cache[number])
        return stack.drop(stack.norm(x))
