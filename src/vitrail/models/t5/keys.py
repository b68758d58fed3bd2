"""T5's weights in Hugging Face Transformers: T5, its version 1.1, Flan-T5, and encoders alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from vitrail.errors import CheckpointError, SettingError
from vitrail.models.layout import PAIRED, STACKED, Described, Layout, Row, nearest_size
from vitrail.models.t5.t5 import SIZES, Config

DEFAULTS = {  # of its T5Config, for what a file leaves out
    "vocab_size": 32_128,
    "d_model": 512,
    "d_kv": 64,
    "d_ff": 2048,
    "num_layers": 6,
    "num_heads": 8,
    "relative_attention_num_buckets": 32,
    "relative_attention_max_distance": 128,
    "layer_norm_epsilon": 1e-6,
    "feed_forward_proj": "relu",
}
NAMES = {  # of its T5Config, and ours
    "d_model": "width",
    "num_layers": "depth",
    "num_heads": "heads",
    "d_ff": "mlp",
    "num_decoder_layers": "decoder_depth",
    "d_kv": "head_width",
    "vocab_size": "vocabulary",
    "relative_attention_num_buckets": "buckets",
    "relative_attention_max_distance": "max_distance",
    "layer_norm_epsilon": "norm_eps",
}
ACTIVATIONS: dict[str, dict[str, Any]] = {  # "gated-gelu" is its GELU by tanh
    "relu": {"activation": "relu", "gated": False},
    "gated-gelu": {"activation": "gelu_tanh", "gated": True},
}
BIAS = "layer.0.SelfAttention.relative_attention_bias"  # of the first block, for all of a stack
COPIES = ("encoder.embed_tokens", "decoder.embed_tokens")  # of the embedding, in files of some ages
IGNORED = (
    *COPIES,
    "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias",  # in the first files, and used by none
    "classification_head",
    "qa_outputs",
)


def rows(config: Config) -> Sequence[Row]:
    """Its names, one line for what encoder and decoder have alike."""
    table = [Row("shared", "token_embedding"), Row("lm_head.weight", "head.weight")]
    for stack, mlp in (("encoder", 1), ("decoder", 2)):
        block, ours = f"{stack}.block.{{}}.layer", f"{stack}.blocks.{{}}"
        table += [
            Row(f"{stack}.block.0.{BIAS}.weight", f"{stack}.distance_bias.table"),
            Row(tuple(f"{block}.0.SelfAttention.{x}" for x in "qkv"), f"{ours}.attention.qkv", STACKED),
            Row(f"{block}.0.SelfAttention.o", f"{ours}.attention.proj"),
            Row(f"{block}.0.layer_norm", f"{ours}.norm1"),
            Row(f"{block}.{mlp}.DenseReluDense.wo", f"{ours}.mlp.fc2"),
            Row(f"{block}.{mlp}.layer_norm", f"{ours}.norm2"),
            Row(f"{stack}.final_layer_norm", f"{stack}.norm"),
            *_first_of_mlp(f"{block}.{mlp}.DenseReluDense", f"{ours}.mlp", config.gated),
        ]
    cross, ours = "decoder.block.{}.layer.1", "decoder.blocks.{}"
    return [
        *table,
        Row(f"{cross}.EncDecAttention.q", f"{ours}.cross_attention.q"),
        Row(tuple(f"{cross}.EncDecAttention.{x}" for x in "kv"), f"{ours}.cross_attention.kv", PAIRED),
        Row(f"{cross}.EncDecAttention.o", f"{ours}.cross_attention.proj"),
        Row(f"{cross}.layer_norm", f"{ours}.norm_cross"),
    ]


def _first_of_mlp(theirs: str, ours: str, gated: bool) -> list[Row]:
    if not gated:
        return [Row(f"{theirs}.wi", f"{ours}.fc1")]
    return [Row(f"{theirs}.wi_0", f"{ours}.gate"), Row(f"{theirs}.wi_1", f"{ours}.fc1")]


def prepare(tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """With the tensors that a file leaves out because they are the same as another; a classifier's have a prefix."""
    tensors = {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}
    embedding = next((tensors[name] for name in ("shared.weight", f"{COPIES[0]}.weight") if name in tensors), None)
    if embedding is None:
        return tensors
    return {"shared.weight": embedding, "lm_head.weight": embedding, **tensors}


def read(config: Mapping[str, Any]) -> Described | None:
    """A T5. Raises `CheckpointError` for one with an MLP that ours does not have."""
    if config.get("model_type") != "t5":
        return None
    stated = {**DEFAULTS, **config}
    if (activation := stated["feed_forward_proj"]) not in ACTIVATIONS:
        raise CheckpointError(f"this T5's MLP is {activation}; ours are {' and '.join(ACTIVATIONS)}.")
    stated["num_decoder_layers"] = stated.get("num_decoder_layers") or stated["num_layers"]
    ours = Config(**{mine: stated[theirs] for theirs, mine in NAMES.items()}, **ACTIVATIONS[activation])
    # Version 5 calls every output tied; those are that are scaled.
    tied = config.get("scale_decoder_outputs", config.get("tie_word_embeddings") is not False)
    return nearest_size("t5", ours, SIZES, _shape)._replace(options={"tied": bool(tied)})


def refine(stated: Described, tensors: Mapping[str, Tensor]) -> Described:
    """An encoder alone where there is no more; with an output of its own where that differs from the embedding."""
    theirs = prepare(tensors)
    alone = {} if any(name.startswith("decoder.block.") for name in theirs) else {"decoder_depth": 0}
    same = "shared.weight" in theirs and torch.equal(theirs["lm_head.weight"], theirs["shared.weight"])
    return stated._replace(changes={**stated.changes, **alone}, options={"tied": same, **stated.options})


def write(config: Config, *, tied: bool | None = None) -> dict[str, Any]:
    """``config.json``; ``tied`` is by default what it is in the authors' releases of that version.

    Raises :class:`SettingError` for a mixture of activation and gate that Transformers has no word for.
    """
    words = [name for name, ours in ACTIVATIONS.items() if ours["activation"] == config.activation]
    words = [name for name in words if ACTIVATIONS[name]["gated"] == config.gated]
    if not words:
        raise SettingError(
            f"Transformers' T5 has no {'gated' if config.gated else 'plain'} MLP with {config.activation}."
        )
    alone = config.decoder_depth == 0
    return {
        "model_type": "t5",
        "architectures": ["T5EncoderModel" if alone else "T5ForConditionalGeneration"],
        **{theirs: getattr(config, mine) for theirs, mine in NAMES.items()},
        "num_decoder_layers": config.decoder_depth or config.depth,
        "feed_forward_proj": words[0],
        "n_positions": config.context,
        "dropout_rate": config.dropout,
        "is_encoder_decoder": not alone,
        "tie_word_embeddings": not config.gated if tied is None else tied,
        "decoder_start_token_id": 0,
        "pad_token_id": 0,
        "eos_token_id": 1,
    }


def _shape(config: Config) -> tuple[object, ...]:
    return (config.width, config.depth, config.heads, config.mlp, config.gated)


LAYOUTS = {
    "transformers": Layout(rows, prepare=prepare, ignored=IGNORED, read=read, refine=refine, write=write),
}
