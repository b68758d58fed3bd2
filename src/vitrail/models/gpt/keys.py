"""Other libraries' names for the weights of a GPT-2."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vitrail.errors import CheckpointError, SettingError
from vitrail.models.gpt.gpt import SIZES, Config
from vitrail.models.layout import TRANSPOSED, Described, Layout, Row, Turn, nearest_size

CONVOLUTION = Turn(lambda x: x[0].T, lambda x: (x.T[None],))  # OpenAI's linear maps are convolutions of one place

SHAPE = {
    "n_embd": "width",
    "n_layer": "depth",
    "n_head": "heads",
    "vocab_size": "vocabulary",
    "n_positions": "context",
    "layer_norm_epsilon": "norm_eps",
}
DEFAULTS = {  # of its GPT2Config, for what a file leaves out
    "n_embd": 768,
    "n_layer": 12,
    "n_head": 12,
    "vocab_size": 50_257,
    "n_positions": 1024,
    "layer_norm_epsilon": 1e-5,
    "activation_function": "gelu_new",
}
FIXED = {
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "add_cross_attention": False,
}
ACTIVATIONS = {  # the first name of each is the one to write
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu": "gelu",
    "relu": "relu",
}
HPARAMS = {"n_vocab": "vocabulary", "n_ctx": "context", "n_embd": "width", "n_head": "heads", "n_layer": "depth"}

LINEAR = {
    "attn.c_attn": "attention.qkv",
    "attn.c_proj": "attention.proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}


def transformers(config: Config) -> Sequence[Row]:
    """The linear maps are stored the other way around, as OpenAI's were."""
    return [
        Row("wte", "token_embedding"),
        Row("wpe.weight", "positions"),
        *(Row(f"h.{{}}.{theirs}.weight", f"blocks.{{}}.{ours}.weight", TRANSPOSED) for theirs, ours in LINEAR.items()),
        *(Row(f"h.{{}}.{theirs}", f"blocks.{{}}.{ours}") for theirs, ours in LINEAR.items()),  # the biases
        Row("h.{}.ln_1", "blocks.{}.norm1"),
        Row("h.{}.ln_2", "blocks.{}.norm2"),
        Row("ln_f", "norm"),
        Row("lm_head.weight", "head.weight"),
    ]


def openai(config: Config) -> Sequence[Row]:
    """The TensorFlow variables of github.com/openai/gpt-2."""
    rows = [Row("model/wte", "token_embedding.weight"), Row("model/wpe", "positions")]
    for theirs, ours in LINEAR.items():
        name, block = f"model/h{{}}/{theirs.replace('.', '/')}", f"blocks.{{}}.{ours}"
        rows += [Row(f"{name}/w", f"{block}.weight", CONVOLUTION), Row(f"{name}/b", f"{block}.bias")]
    for name, norm in (("h{}/ln_1", "blocks.{}.norm1"), ("h{}/ln_2", "blocks.{}.norm2"), ("ln_f", "norm")):
        rows += [Row(f"model/{name}/g", f"{norm}.weight"), Row(f"model/{name}/b", f"{norm}.bias")]
    return rows


def read_transformers(config: Mapping[str, Any]) -> Described | None:
    """A GPT-2 of Transformers. Raises :class:`CheckpointError` for one that was built with what ours does not have."""
    if config.get("model_type") != "gpt2":
        return None
    for name, value in FIXED.items():
        if config.get(name, value) != value:
            raise CheckpointError(f"this GPT-2 has {name}={config[name]}, Vitrail's has {value}.")
    stated = {**DEFAULTS, **config}
    if stated["activation_function"] not in ACTIVATIONS:
        raise CheckpointError(
            f"this GPT-2 has the activation {stated['activation_function']}; Vitrail's has {', '.join(ACTIVATIONS)}."
        )
    ours = Config(
        **{our: stated[theirs] for theirs, our in SHAPE.items()},
        mlp=stated.get("n_inner") or 4 * stated["n_embd"],
        activation=ACTIVATIONS[stated["activation_function"]],  # type: ignore[arg-type]
    )
    return named(ours)._replace(options={} if stated.get("tie_word_embeddings", True) else {"tied": False})


def read_openai(config: Mapping[str, Any]) -> Described | None:
    """What the ``hparams.json`` beside OpenAI's files states."""
    if config.keys() != HPARAMS.keys():
        return None
    stated: dict[str, Any] = {ours: int(config[theirs]) for theirs, ours in HPARAMS.items()}
    return named(Config(**stated, mlp=4 * stated["width"]))


def named(config: Config) -> Described:
    """The published size of this shape, or the family with everything."""
    return nearest_size("gpt", config, SIZES, lambda of: (of.width, of.depth, of.heads, of.mlp))


def write_transformers(config: Config) -> dict[str, Any]:
    """``config.json`` for Transformers. Raises :class:`SettingError` for what its GPT-2 cannot be."""
    if config.position != "learned":
        raise SettingError(
            "Transformers' GPT-2 has learned positions only; this one's are rotary, so keep it as it is."
        )
    return {
        "model_type": "gpt2",
        "architectures": ["GPT2LMHeadModel"],
        **{theirs: getattr(config, ours) for theirs, ours in SHAPE.items()},
        "n_inner": config.mlp,
        "activation_function": next(name for name, ours in ACTIVATIONS.items() if ours == config.activation),
    }


LAYOUTS: dict[str, Layout] = {
    "transformers": Layout(
        transformers,
        prefix="transformer.",
        ignored=("h.{}.attn.bias", "h.{}.attn.masked_bias"),  # the mask, in files of older versions
        read=read_transformers,
        write=write_transformers,
    ),
    "openai": Layout(openai, read=read_openai),
}
