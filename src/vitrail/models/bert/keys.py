"""BERT's and RoBERTa's weights in other libraries: Transformers' names, and those of Google's own code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from vitrail.errors import CheckpointError, SettingError
from vitrail.models.bert.bert import SIZES, Config
from vitrail.models.layout import SAME, STACKED, TRANSPOSED, Described, Layout, Row, Turn, nearest_size

SHAPE = {
    "hidden_size": "width",
    "num_hidden_layers": "depth",
    "num_attention_heads": "heads",
    "intermediate_size": "mlp",
    "vocab_size": "vocabulary",
    "type_vocab_size": "segments",
    "hidden_dropout_prob": "dropout",
    "layer_norm_eps": "norm_eps",
    "initializer_range": "initial_std",
}
DEFAULTS = {  # of Transformers' BertConfig, for what a file leaves out
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "vocab_size": 30_522,
    "type_vocab_size": 2,
    "hidden_dropout_prob": 0.1,
    "layer_norm_eps": 1e-12,
    "initializer_range": 0.02,
    "max_position_embeddings": 512,
    "hidden_act": "gelu",
    "pad_token_id": 0,
}
ROBERTA_DEFAULTS = {**DEFAULTS, "vocab_size": 50_265, "pad_token_id": 1}
ROBERTAS = ("roberta", "xlm-roberta", "camembert")  # the same network for other languages
ACTIVATIONS = {  # the first name of each is the one to write
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
}
TASKS = ("classifier", "qa_outputs", "pooler")  # what fine-tuned models have behind the blocks

STACKED_KERNELS = Turn(
    lambda *parts: torch.cat([part.T for part in parts]), lambda x: tuple(part.T for part in x.chunk(3))
)


def transformers_rows(config: Config) -> Sequence[Row]:
    """The names of the network and, under ``cls``, of BERT's two heads."""
    return [
        *_encoder(),
        Row("cls.predictions.transform.dense", "head.dense"),
        Row("cls.predictions.transform.LayerNorm", "head.norm"),
        Row("cls.predictions.bias", "head.bias"),
        Row("cls.seq_relationship", "head.next"),
    ]


def roberta_rows(config: Config) -> Sequence[Row]:
    """The same names but for the head."""
    return [
        *_encoder(),
        Row("lm_head.dense", "head.dense"),
        Row("lm_head.layer_norm", "head.norm"),
        Row("lm_head.bias", "head.bias"),
    ]


def google_rows(config: Config) -> Sequence[Row]:
    """The names of Google's TensorFlow checkpoints, whose matrices are the other way around."""
    layer, block = "encoder/layer_{}", "blocks.{}"
    qkv = [f"{layer}/attention/self/{part}" for part in ("query", "key", "value")]
    return [
        Row("embeddings/word_embeddings", "token_embedding.weight"),
        Row("embeddings/position_embeddings", "positions"),
        Row("embeddings/token_type_embeddings", "segments"),
        *_norm("embeddings/LayerNorm", "norm"),
        Row(tuple(f"{part}/kernel" for part in qkv), f"{block}.attention.qkv.weight", STACKED_KERNELS),
        Row(tuple(f"{part}/bias" for part in qkv), f"{block}.attention.qkv.bias", STACKED),
        *_dense(f"{layer}/attention/output/dense", f"{block}.attention.proj"),
        *_norm(f"{layer}/attention/output/LayerNorm", f"{block}.norm1"),
        *_dense(f"{layer}/intermediate/dense", f"{block}.mlp.fc1"),
        *_dense(f"{layer}/output/dense", f"{block}.mlp.fc2"),
        *_norm(f"{layer}/output/LayerNorm", f"{block}.norm2"),
        *_dense("pooler/dense", "pooler"),
        *_dense("cls/predictions/transform/dense", "head.dense"),
        *_norm("cls/predictions/transform/LayerNorm", "head.norm"),
        Row("cls/predictions/output_bias", "head.bias"),
        Row("cls/seq_relationship/output_weights", "head.next.weight"),
        Row("cls/seq_relationship/output_bias", "head.next.bias"),
    ]


def prepare_transformers(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Files of the first years call a norm's tensors as Google does. Raises `CheckpointError` for an untied decoder."""
    renamed = {
        name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias"): tensor
        for name, tensor in tensors.items()
    }
    for prefix, decoder in (("bert.", "cls.predictions.decoder.weight"), ("roberta.", "lm_head.decoder.weight")):
        embedding = renamed.get(f"{prefix}embeddings.word_embeddings.weight")
        if decoder in renamed and embedding is not None and not torch.equal(renamed[decoder], embedding):
            raise CheckpointError(f"{decoder} is not the embedding of the tokens; Vitrail's BERT has one for both.")
    return renamed


def prepare_google(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Without what its optimizer kept."""
    ends = ("/adam_m", "/adam_v", "global_step")
    return {name: tensor for name, tensor in tensors.items() if not name.endswith(ends)}


def read_bert(config: Mapping[str, Any]) -> Described | None:
    """A BERT; Google's own ``bert_config.json`` and early ones of Transformers do not say so in words."""
    nameless = "model_type" not in config and "type_vocab_size" in config
    if config.get("model_type") != "bert" and not nameless:
        return None
    return _described({**DEFAULTS, **config}, first_position=0)


def read_roberta(config: Mapping[str, Any]) -> Described | None:
    """A RoBERTa, whose first position comes after that of the padding token."""
    if config.get("model_type") not in ROBERTAS:
        return None
    stated = {**ROBERTA_DEFAULTS, **config}
    return _described(stated, first_position=stated["pad_token_id"] + 1)


def refine(stated: Described, tensors: Mapping[str, Tensor]) -> Described:
    """Which parts are there is not said by the config: the pooler, the head for the next sentence, Google's GELU."""
    pooler = any(name.endswith(("pooler.dense.weight", "pooler/dense/kernel")) for name in tensors)
    changes: dict[str, Any] = {"pooler": pooler}
    if any("/layer_0/" in name for name in tensors) and stated.changes.get("activation", "gelu") == "gelu":
        changes["activation"] = "gelu_tanh"
    follows = any(name.endswith(("seq_relationship.weight", "seq_relationship/output_weights")) for name in tensors)
    return stated._replace(changes={**stated.changes, **changes}, options={"next_sentence": follows})


def write_bert(config: Config) -> dict[str, Any]:
    """``config.json`` for Transformers. Raises `SettingError` for what its BERT cannot be."""
    if config.first_position:
        raise SettingError("Transformers' BERT counts positions from 0; this model is a RoBERTa, write it as such.")
    architecture = "BertForPreTraining" if config.pooler else "BertForMaskedLM"
    return {
        "model_type": "bert",
        "architectures": [architecture],
        **_written(config),
        "max_position_embeddings": config.context,
    }


def write_roberta(config: Config) -> dict[str, Any]:
    """``config.json`` for Transformers. Raises `SettingError` for what its RoBERTa cannot be."""
    if not config.first_position:
        raise SettingError("Transformers' RoBERTa counts positions behind the padding's; this model is a BERT.")
    return {
        "model_type": "roberta",
        "architectures": ["RobertaForMaskedLM"],
        **_written(config),
        "max_position_embeddings": config.first_position + config.context,
        "pad_token_id": config.first_position - 1,
    }


def _encoder() -> list[Row]:
    layer, block = "encoder.layer.{}", "blocks.{}"
    qkv = [f"{layer}.attention.self.{part}" for part in ("query", "key", "value")]
    return [
        Row("embeddings.word_embeddings.weight", "token_embedding.weight"),
        Row("embeddings.position_embeddings.weight", "positions"),
        Row("embeddings.token_type_embeddings.weight", "segments"),
        Row("embeddings.LayerNorm", "norm"),
        *(
            Row(tuple(f"{part}.{kind}" for part in qkv), f"{block}.attention.qkv.{kind}", STACKED)
            for kind in ("weight", "bias")
        ),
        Row(f"{layer}.attention.output.dense", f"{block}.attention.proj"),
        Row(f"{layer}.attention.output.LayerNorm", f"{block}.norm1"),
        Row(f"{layer}.intermediate.dense", f"{block}.mlp.fc1"),
        Row(f"{layer}.output.dense", f"{block}.mlp.fc2"),
        Row(f"{layer}.output.LayerNorm", f"{block}.norm2"),
        Row("pooler.dense", "pooler"),
    ]


def _dense(theirs: str, ours: str) -> list[Row]:
    return [Row(f"{theirs}/kernel", f"{ours}.weight", TRANSPOSED), Row(f"{theirs}/bias", f"{ours}.bias", SAME)]


def _norm(theirs: str, ours: str) -> list[Row]:
    return [Row(f"{theirs}/gamma", f"{ours}.weight"), Row(f"{theirs}/beta", f"{ours}.bias")]


def _described(stated: Mapping[str, Any], first_position: int) -> Described:
    """Raises `CheckpointError` for one that has what ours does not have."""
    kind = stated.get("model_type", "bert")
    if (activation := ACTIVATIONS.get(stated["hidden_act"])) is None:
        raise CheckpointError(f"this {kind} has the activation {stated['hidden_act']}, which Vitrail's has not.")
    for true, what in (
        (stated.get("is_decoder") or stated.get("add_cross_attention"), "is a decoder"),
        (stated.get("position_embedding_type", "absolute") != "absolute", "has relative positions"),
        (stated.get("tie_word_embeddings") is False, "has an output layer of its own"),
    ):
        if true:
            raise CheckpointError(f"this {kind} {what}, which Vitrail's BERT has not.")
    config = Config(
        **{ours: stated[theirs] for theirs, ours in SHAPE.items()},
        context=stated["max_position_embeddings"] - first_position,
        first_position=first_position,
        activation=activation,  # type: ignore[arg-type]
    )
    return nearest_size("bert", config, SIZES, lambda c: (c.width, c.depth, c.heads, c.mlp, c.first_position))


def _written(config: Config) -> dict[str, Any]:
    return {
        **{theirs: getattr(config, ours) for theirs, ours in SHAPE.items()},
        "attention_probs_dropout_prob": 0.0,
        "hidden_act": next(name for name, ours in ACTIVATIONS.items() if ours == config.activation),
        "tie_word_embeddings": True,
    }


BUFFERS = ("embeddings.position_ids", "embeddings.token_type_ids")  # numbers from 0 on, and zeros

LAYOUTS = {
    "transformers": Layout(
        transformers_rows,
        prepare=prepare_transformers,
        prefix="bert.",
        ignored=(*BUFFERS, *TASKS, "cls.predictions.decoder"),
        read=read_bert,
        refine=refine,
        write=write_bert,
    ),
    "transformers-roberta": Layout(
        roberta_rows,
        prepare=prepare_transformers,
        prefix="roberta.",
        ignored=(*BUFFERS, *TASKS, "lm_head.decoder"),
        read=read_roberta,
        refine=refine,
        write=write_roberta,
    ),
    "google": Layout(
        google_rows, prepare=prepare_google, prefix="bert/", ignored=("pooler",), read=read_bert, refine=refine
    ),
}
