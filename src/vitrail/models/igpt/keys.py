"""iGPT's weights in other hands: OpenAI's TensorFlow variables, Transformers, and teddykoker's image-gpt.

The palette is called ``clusters`` here, wherever it is kept (`weights.palette`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from vitrail.errors import CheckpointError
from vitrail.models.igpt.igpt import SIZES, Config
from vitrail.models.layout import TRANSPOSED, Described, Layout, Row, Turn, nearest_size

SHAPE = {"n_embd": "width", "n_layer": "depth", "n_head": "heads", "layer_norm_epsilon": "norm_eps"}
DEFAULTS = {  # of Transformers' ImageGPTConfig, for what a file leaves out
    "n_embd": 512,
    "n_layer": 24,
    "n_head": 8,
    "layer_norm_epsilon": 1e-5,
    "vocab_size": 513,
    "n_positions": 1024,
    "activation_function": "quick_gelu",
}
FIXED = {
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "add_cross_attention": False,
    "tie_word_embeddings": False,
}
ACTIVATIONS = {"quick_gelu": "quick_gelu", "gelu": "gelu", "gelu_new": "gelu_tanh", "relu": "relu"}
LINEAR = {
    "attn.c_attn": "attention.qkv",
    "attn.c_proj": "attention.proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}

POSITIONS = Turn(lambda x: x[None], lambda x: (x[0],))
WITH_START = Turn(lambda colours, start: torch.cat([colours, start[None]]), lambda x: (x[:-1], x[-1]))
FROM_UNIT = Turn(lambda x: 2 * x - 1, lambda x: ((x + 1) / 2,))  # of 0 … 1, and of -1 … 1


def transformers(config: Config) -> Sequence[Row]:
    """Transformers' names, whose linear maps are stored the other way around."""
    return [
        Row("clusters", "palette"),
        Row("wte", "colour_embedding"),
        Row("wpe.weight", "positions", POSITIONS),
        *(Row(f"h.{{}}.{theirs}.weight", f"blocks.{{}}.{ours}.weight", TRANSPOSED) for theirs, ours in LINEAR.items()),
        *(Row(f"h.{{}}.{theirs}", f"blocks.{{}}.{ours}") for theirs, ours in LINEAR.items()),  # the biases
        Row("h.{}.ln_1", "blocks.{}.norm1"),
        Row("h.{}.ln_2", "blocks.{}.norm2"),
        Row("ln_f", "norm"),
        Row("lm_head", "output"),
        Row("score", "head.linear"),
    ]


def prepare_transformers(tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Its classifier has no bias; ours has one, which is zero then."""
    score = tensors.get("score.weight")
    return tensors if score is None else {**tensors, "score.bias": score.new_zeros(len(score))}


def openai(config: Config) -> Sequence[Row]:
    """The TensorFlow variables of github.com/openai/image-gpt, whose heads are an axis of their own."""
    by_head = Turn(
        lambda *parts: torch.cat([part.flatten(0, 1) for part in parts]),
        lambda x: tuple(part.unflatten(0, (config.heads, -1)) for part in x.chunk(3)),
    )
    out_of_heads = Turn(lambda x: x.flatten(0, 1).T, lambda x: (x.T.unflatten(0, (config.heads, -1)),))
    qkv = tuple(f"h{{}}/attn/{part}_proj" for part in "qkv")
    colours = Row(("wte", "sos"), "colour_embedding.weight", WITH_START)
    return [
        Row("clusters", "palette"),
        colours if config.causal else Row("wte", "colour_embedding.weight"),
        Row("wpe", "positions", POSITIONS),
        Row(qkv, "blocks.{}.attention.qkv.weight", by_head),
        Row("h{}/attn/c_proj", "blocks.{}.attention.proj.weight", out_of_heads),
        Row("h{}/mlp/c_fc/w", "blocks.{}.mlp.fc1.weight", TRANSPOSED),
        Row("h{}/mlp/c_proj/w", "blocks.{}.mlp.fc2.weight", TRANSPOSED),
        Row("h{}/ln_1/g", "blocks.{}.norm1.weight"),
        Row("h{}/ln_2/g", "blocks.{}.norm2.weight"),
        Row("ln_f/g", "norm.weight"),
        Row("wtet", "output.weight"),
    ]


def image_gpt(config: Config) -> Sequence[Row]:
    """The names of github.com/teddykoker/image-gpt, whose attention is PyTorch's own and whose pixels are 0 … 1."""
    return [
        Row("centroids", "palette", FROM_UNIT),
        Row(("token_embeddings.weight", "sos"), "colour_embedding.weight", WITH_START),
        Row("position_embeddings.weight", "positions", POSITIONS),
        Row("layers.{}.ln_1", "blocks.{}.norm1"),
        Row("layers.{}.ln_2", "blocks.{}.norm2"),
        Row("layers.{}.attn.in_proj_weight", "blocks.{}.attention.qkv.weight"),
        Row("layers.{}.attn.in_proj_bias", "blocks.{}.attention.qkv.bias"),
        Row("layers.{}.attn.out_proj", "blocks.{}.attention.proj"),
        Row("layers.{}.mlp.0", "blocks.{}.mlp.fc1"),
        Row("layers.{}.mlp.2", "blocks.{}.mlp.fc2"),
        Row("ln_f", "norm"),
        Row("head", "output"),
    ]


def read_transformers(config: Mapping[str, Any]) -> Described | None:
    """An ImageGPT of Transformers. Raises :class:`CheckpointError` for one that ours cannot be."""
    if config.get("model_type") != "imagegpt":
        return None
    for name, value in FIXED.items():
        if config.get(name, value) != value:
            raise CheckpointError(f"this ImageGPT has {name}={config[name]}, Vitrail's iGPT has {value}.")
    stated = {**DEFAULTS, **config}
    side = math.isqrt(stated["n_positions"])
    if side * side != stated["n_positions"]:
        raise CheckpointError(f"this ImageGPT reads {stated['n_positions']} pixels, which are no square.")
    if stated["activation_function"] not in ACTIVATIONS:
        raise CheckpointError(
            f"this ImageGPT has the activation {stated['activation_function']}; iGPT has {', '.join(ACTIVATIONS)}."
        )
    classifies = "ImageGPTForImageClassification" in (config.get("architectures") or ())
    ours = Config(
        **{our: stated[theirs] for theirs, our in SHAPE.items()},
        mlp=stated.get("n_inner") or 4 * stated["n_embd"],
        image_size=(side, side),
        colours=stated["vocab_size"] - 1,
        activation=ACTIVATIONS[stated["activation_function"]],  # type: ignore[arg-type]
        bias=True,
    )
    return named(replace(ours, shift=False, feature_layer=ours.depth) if classifies else ours)


def read_generating(config: Mapping[str, Any]) -> Described | None:
    """The same, of one with the part that says which colour comes next."""
    generates = "ImageGPTForCausalImageModeling" in (config.get("architectures") or ())
    return read_transformers(config) if generates else None


def named(config: Config) -> Described:
    """The published size of this shape and what differs from it, or the family with everything."""
    return nearest_size("igpt", config, SIZES, lambda of: (of.width, of.depth, of.heads, of.mlp))


HALF: Mapping[str, Any] = {
    "resize": "squash",
    "interpolation": "bilinear",
    "mean": (0.5, 0.5, 0.5),
    "std": (0.5, 0.5, 0.5),
}
MASKS = ("h.{}.attn.bias", "h.{}.attn.masked_bias")  # of attention, in files of older versions

TRANSFORMERS = Layout(
    transformers, prepare_transformers, "transformer.", (*MASKS, "lm_head"), preprocess=HALF, read=read_transformers
)
OPENAI = Layout(openai, prefix="model/", ignored=("wtet",), preprocess=HALF)
IMAGE_GPT = Layout(
    image_gpt,
    prefix="gpt.",
    ignored=("head", "clf_head"),
    implies={"norm": "layer", "residual": "normed", "activation": "gelu", "bias": True},
    preprocess=HALF,
)

# Of the features alone, and of all that says which colour comes next, or is hidden.
LAYOUTS = {"transformers": TRANSFORMERS, "openai": OPENAI, "image-gpt": IMAGE_GPT}
NEXT_PIXEL = {
    "transformers": replace(TRANSFORMERS, ignored=MASKS, read=read_generating),
    "openai": replace(OPENAI, ignored=()),
    "image-gpt": replace(IMAGE_GPT, ignored=("clf_head",)),
}
MASKED_PIXEL = {"openai": replace(OPENAI, ignored=(), implies={"causal": False, "shift": False})}
