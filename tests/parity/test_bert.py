"""BERT and RoBERTa with random weights: files that Transformers writes, opened by us, against its own figures."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForPreTraining,
    BertForSequenceClassification,
    BertModel,
    RobertaConfig,
    RobertaForMaskedLM,
    RobertaModel,
    XLMRobertaConfig,
    XLMRobertaForMaskedLM,
)

from vitrail import models
from vitrail.data.text.characters import learn
from vitrail.errors import CheckpointError
from vitrail.models.bert import LAYOUTS
from vitrail.weights import text
from vitrail.weights.load import load
from vitrail.weights.rename import to_theirs

SHAPE = {
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 80,
    "vocab_size": 40,
    "max_position_embeddings": 24,
}
ROBERTA = {**SHAPE, "type_vocab_size": 1, "layer_norm_eps": 1e-5, "pad_token_id": 1}
TOKENS = {
    "bert": ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"),
    "roberta": ("<s>", "<pad>", "</s>", "<unk>", "<mask>"),
}


def peer_of(kind, config, **settings):
    torch.manual_seed(0)
    peer = kind(config(**settings))
    for name, parameter in peer.named_parameters():  # values that none of them starts with
        parameter.data.copy_(parameter + torch.randn_like(parameter) * 0.1)
        if name.endswith("position_embeddings.weight") and config is not BertConfig:
            parameter.data[:2] = torch.randn(2, 48)  # which no token that counts may see
    return peer.eval()


def written(peer, folder):
    """The folder with the network as its library publishes it, and a tokenizer with the special tokens it needs."""
    peer.save_pretrained(folder)
    special = TOKENS["bert" if peer.config.model_type == "bert" else "roberta"]
    (folder / "tokenizer.json").write_text(learn(["abcdefghijk"], 40, special).to_json())
    return folder


def inputs(pad, first=5):
    """Ids ``(3, 16)`` of rows of 16, 11 and 7 tokens, their segments and what counts."""
    mask = torch.arange(16) < torch.tensor([[16], [11], [7]])
    ids = torch.randint(first, 40, (3, 16)).masked_fill(~mask, pad)
    segments = ((torch.arange(16) > 4) & mask).long()
    return ids, segments, mask


def difference(ours, theirs, mask=None):
    """The largest one, over the tokens that count."""
    return float((ours - theirs).abs()[... if mask is None else mask].max())


@torch.no_grad()
def pretraining(folder: Path, **settings) -> float:
    peer = peer_of(BertForPreTraining, BertConfig, **SHAPE, **settings)
    ours = load(written(peer, folder))
    ids, segments, mask = inputs(pad=0)
    theirs = peer(input_ids=ids, token_type_ids=segments, attention_mask=mask.long())
    features = ours.backbone(ids, segments, mask)
    tokens = difference(ours(ids, segments, mask), theirs.prediction_logits, mask)
    return max(tokens, difference(ours.head.next(features.pooled), theirs.seq_relationship_logits))


@torch.no_grad()
def masked(kind, config, folder: Path, **settings) -> float:
    """Logits with padding and without."""
    peer = peer_of(kind, config, **settings)
    ours = load(written(peer, folder))
    ids, _, mask = inputs(pad=peer.config.pad_token_id)
    padded = difference(ours(ids, mask=mask), peer(input_ids=ids, attention_mask=mask.long()).logits, mask)
    return max(padded, difference(ours(ids[:1]), peer(input_ids=ids[:1]).logits))


@torch.no_grad()
def backbone(kind, config, folder: Path, **settings) -> float:
    """Tokens and what is pooled."""
    peer = peer_of(kind, config, **settings)
    ours = text.load_backbone(written(peer, folder)).backbone
    ids, segments, mask = inputs(pad=peer.config.pad_token_id)
    told_apart = {"token_type_ids": segments} if peer.config.type_vocab_size > 1 else {}
    theirs, features = peer(input_ids=ids, attention_mask=mask.long(), **told_apart), ours(ids, segments, mask)
    tokens = difference(features.tokens, theirs.last_hidden_state, mask)
    return max(tokens, difference(features.pooled, theirs.pooler_output))


CASES: dict[str, Callable[[Path], float]] = {
    "BertForPreTraining": pretraining,
    "BertForPreTraining, GELU by tanh": lambda folder: pretraining(folder, hidden_act="gelu_new"),
    "BertForMaskedLM": lambda folder: masked(BertForMaskedLM, BertConfig, folder, **SHAPE),
    "BertModel": lambda folder: backbone(BertModel, BertConfig, folder, **SHAPE),
    "RobertaForMaskedLM": lambda folder: masked(RobertaForMaskedLM, RobertaConfig, folder, **ROBERTA),
    "RobertaModel": lambda folder: backbone(RobertaModel, RobertaConfig, folder, **ROBERTA),
    "XLMRobertaForMaskedLM": lambda folder: masked(XLMRobertaForMaskedLM, XLMRobertaConfig, folder, **ROBERTA),
}


@pytest.mark.parametrize("case", CASES)
def test_a_file_gives_the_same_figures(case, tmp_path):
    assert CASES[case](tmp_path) < 1e-5


@pytest.mark.parametrize(
    ("kind", "config", "shape", "layout"),
    [
        (BertForPreTraining, BertConfig, SHAPE, "transformers"),
        (BertForMaskedLM, BertConfig, SHAPE, "transformers"),
        (RobertaForMaskedLM, RobertaConfig, ROBERTA, "transformers-roberta"),
    ],
)
@torch.no_grad()
def test_weights_go_back_out_as_they_came(kind, config, shape, layout, tmp_path):
    ours = load(written(peer_of(kind, config, **shape), tmp_path))
    file = load_file(tmp_path / "model.safetensors")
    back = to_theirs(ours.state_dict(), LAYOUTS[layout], ours.backbone.config)
    assert back.keys() == file.keys()
    assert all(torch.equal(back[name], file[name]) for name in file)

    config_again = LAYOUTS[layout].write(ours.backbone.config)
    assert config_again["architectures"] == [kind.__name__]
    described = LAYOUTS[layout].refine(LAYOUTS[layout].read(config_again), back)
    assert models.changed(described.model, **described.changes) == ours.backbone.config
    again = tmp_path / "again"
    again.mkdir()
    (again / "config.json").write_text(json.dumps(config_again))
    save_file(back, again / "model.safetensors", {"format": "pt"})
    peer, info = kind.from_pretrained(again, output_loading_info=True)
    assert not any(info.values())
    ids = inputs(pad=1)[0][:1]
    out = peer.eval()(input_ids=ids)
    theirs = out.prediction_logits if kind is BertForPreTraining else out.logits
    assert difference(ours(ids), theirs) < 1e-5


@torch.no_grad()
def test_files_of_the_first_years(tmp_path):
    """bert-base-uncased: a norm's gamma and beta, the decoder once more, heads that its config knows nothing of."""
    peer = peer_of(BertForPreTraining, BertConfig, **SHAPE)
    folder = written(peer, tmp_path)
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): tensor
        for name, tensor in load_file(folder / "model.safetensors").items()
    }
    old["cls.predictions.decoder.weight"] = old["bert.embeddings.word_embeddings.weight"].clone()
    old["bert.embeddings.position_ids"] = torch.arange(24)[None]
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "architectures": ["BertForMaskedLM"]}))
    (folder / "model.safetensors").unlink()
    torch.save(old, folder / "pytorch_model.bin")
    ours = load(folder)
    ids, segments, mask = inputs(pad=0)
    theirs = peer(input_ids=ids, token_type_ids=segments, attention_mask=mask.long())
    assert ours.options.next_sentence
    assert difference(ours(ids, segments, mask), theirs.prediction_logits, mask) < 1e-5
    pooled = text.load_backbone(folder).backbone(ids, segments, mask).pooled
    assert difference(pooled, peer.bert(ids, mask.long(), segments).pooler_output) < 1e-5

    old["cls.predictions.decoder.weight"] += 1
    torch.save(old, folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"decoder\.weight is not the embedding"):
        load(folder)


@torch.no_grad()
def test_a_fine_tuned_model_is_a_backbone_but_guesses_no_tokens(tmp_path):
    peer = peer_of(BertForSequenceClassification, BertConfig, **SHAPE, num_labels=3)
    folder = written(peer, tmp_path)
    ids, segments, mask = inputs(pad=0)
    pooled = text.load_backbone(folder).backbone(ids, segments, mask).pooled
    assert difference(pooled, peer.bert(ids, mask.long(), segments).pooler_output) < 1e-5
    with pytest.raises(CheckpointError, match=r"missing cls\.predictions"):
        text.load(folder)


def google(state):
    """Transformers' tensors as Google's program names them; its matrices are the other way around."""
    words = {
        "encoder.layer.": "encoder.layer_",
        "LayerNorm.weight": "LayerNorm.gamma",
        "LayerNorm.bias": "LayerNorm.beta",
        "cls.predictions.bias": "cls.predictions.output_bias",
        "seq_relationship.weight": "seq_relationship.output_weights",
        "seq_relationship.bias": "seq_relationship.output_bias",
        "embeddings.weight": "embeddings",
    }
    renamed = {}
    for name, tensor in state.items():
        for theirs, googles in words.items():
            name = name.replace(theirs, googles)
        if name.endswith(".weight"):
            name, tensor = name.removesuffix("weight") + "kernel", tensor.T
        renamed[name.replace(".", "/")] = tensor.contiguous()
    return renamed


@torch.no_grad()
def test_googles_names_and_its_gelu(tmp_path):
    peer = peer_of(BertForPreTraining, BertConfig, **SHAPE, hidden_act="gelu_new")
    folder = written(peer, tmp_path)
    theirs = google(load_file(folder / "model.safetensors"))
    assert theirs["bert/encoder/layer_0/intermediate/dense/kernel"].shape == (48, 80)
    assert "bert/embeddings/word_embeddings" in theirs
    assert "cls/predictions/transform/LayerNorm/gamma" in theirs
    save_file({**theirs, "bert/pooler/dense/kernel/adam_m": torch.zeros(2)}, folder / "model.safetensors")
    config = {**SHAPE, "hidden_act": "gelu", "type_vocab_size": 2}
    (folder / "config.json").write_text(json.dumps(config))
    ours = load(folder)
    assert ours.backbone.config.activation == "gelu_tanh"
    ids, segments, mask = inputs(pad=0)
    expected = peer(input_ids=ids, token_type_ids=segments, attention_mask=mask.long())
    assert difference(ours(ids, segments, mask), expected.prediction_logits, mask) < 1e-5
    follows = ours.head.next(ours.backbone(ids, segments, mask).pooled)
    assert difference(follows, expected.seq_relationship_logits) < 1e-5
    back = to_theirs(ours.state_dict(), LAYOUTS["google"], ours.backbone.config)
    assert back.keys() == theirs.keys()
    assert all(torch.equal(back[name], theirs[name]) for name in theirs)

    said = text.load(folder / "model.safetensors", layout="google", model="bert-base", config=shape_of(ours))
    assert torch.equal(said(ids), ours(ids))


def shape_of(learner):
    config = learner.backbone.config
    return {name: getattr(config, name) for name in ("width", "depth", "heads", "mlp", "vocabulary", "context")}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_act": "silu"}, "the activation silu"),
        ({"is_decoder": True}, "is a decoder"),
        ({"position_embedding_type": "relative_key"}, "relative positions"),
        ({"tie_word_embeddings": False}, "an output layer of its own"),
    ],
)
def test_what_ours_has_not_is_said(changes, message):
    for read, kind in ((LAYOUTS["transformers"].read, "bert"), (LAYOUTS["transformers-roberta"].read, "roberta")):
        with pytest.raises(CheckpointError, match=message):
            read({"model_type": kind, **changes})
