"""T5 and the 2017 Transformer with random weights: against Transformers' files and answers, and against PyTorch's."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import (
    GenerationConfig,
    T5Config,
    T5EncoderModel,
    T5ForConditionalGeneration,
    T5ForSequenceClassification,
)
from transformers.models.t5.modeling_t5 import T5Attention

from vitrail import models
from vitrail.data.text.characters import learn
from vitrail.errors import CheckpointError, SettingError
from vitrail.models.t5 import LAYOUTS, T5
from vitrail.models.t5.t5 import distance_bucket
from vitrail.models.transformer import Config, Transformer
from vitrail.nn.beam import beam_search, token_by_token
from vitrail.objectives.span import AnswerWriter
from vitrail.weights import text
from vitrail.weights.load import load
from vitrail.weights.rename import to_theirs

SHAPE = {"d_model": 48, "d_kv": 16, "d_ff": 80, "num_layers": 2, "num_heads": 4, "vocab_size": 40}
FIRST = {**SHAPE, "num_decoder_layers": 1, "relative_attention_num_buckets": 8, "relative_attention_max_distance": 12}
SECOND = {**SHAPE, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
TOKENS = ("<pad>", "</s>", "<unk>", *(f"<extra_id_{number}>" for number in range(30)))


def peer_of(kind=T5ForConditionalGeneration, **settings):
    torch.manual_seed(0)
    peer = kind(T5Config(**settings, dropout_rate=0.0, decoder_start_token_id=0))
    if settings.get("tie_word_embeddings") is False and hasattr(peer, "lm_head"):
        peer.lm_head.weight = nn.Parameter(torch.randn(40, 48) * 0.1)
    for name, parameter in peer.named_parameters():
        noise = torch.randn_like(parameter)
        parameter.data.copy_(noise if name.endswith("relative_attention_bias.weight") else parameter + noise * 0.1)
    return peer.eval()


def written(peer, folder, **config):
    """The folder as its library's versions publish it, all copies of the embedding with it; and a tokenizer."""
    folder.mkdir(exist_ok=True)
    stated = {**peer.config.to_dict(), "architectures": [type(peer).__name__], **config}
    (folder / "config.json").write_text(json.dumps(stated))
    save_file({name: tensor.clone() for name, tensor in peer.state_dict().items()}, folder / "model.safetensors")
    (folder / "tokenizer.json").write_text(learn(["abcdefg"], 40, TOKENS).to_json())
    return folder


def inputs():
    """What is read ``(3, 20)``, rows of 20, 13 and 6 tokens, with what counts; and what is written ``(3, 9)``."""
    mask = torch.arange(20) < torch.tensor([[20], [13], [6]])
    return torch.randint(3, 40, (3, 20)).masked_fill(~mask, 0), mask, torch.randint(0, 40, (3, 9))


def largest(ours, theirs):
    return float((ours - theirs).abs().max())


@torch.no_grad()
def whole(folder: Path, **settings) -> float:
    """The encoder's tokens, and logits: all at once, and token by token from the caches."""
    peer = peer_of(**settings)
    ours = load(written(peer, folder))
    source, mask, target = inputs()
    theirs = peer(input_ids=source, attention_mask=mask.long(), decoder_input_ids=target)
    writer = AnswerWriter(ours, source, mask)
    steps = torch.stack([writer.step(target[:, place]) for place in range(9)], dim=1)
    return max(
        largest(ours.backbone(source, mask=mask).tokens[mask], theirs.encoder_last_hidden_state[mask]),
        largest(ours(source, target, mask), theirs.logits),
        largest(ours(source[:1], target[:1]), theirs.logits[:1]),
        largest(steps, theirs.logits),
    )


@torch.no_grad()
def encoder(folder: Path, **settings) -> float:
    peer = peer_of(T5EncoderModel, **settings)
    found = text.load_backbone(written(peer, folder))
    source, mask, _ = inputs()
    theirs = peer(input_ids=source, attention_mask=mask.long()).last_hidden_state
    features = found.backbone(source, mask=mask)
    mean = torch.stack([row[counts].mean(dim=0) for row, counts in zip(theirs, mask, strict=True)])
    return max(largest(features.tokens[mask], theirs[mask]), largest(features.pooled, mean))


@torch.no_grad()
def against_pytorch(folder: Path) -> float:
    """The 2017 Transformer: PyTorch's stacks, filled with ours, between the same embeddings."""
    torch.manual_seed(0)
    ours = Transformer(Config(48, 2, 4, 80, 3, vocabulary=40, dropout=0.0)).eval()
    layer = {"d_model": 48, "nhead": 4, "dim_feedforward": 80, "dropout": 0.0, "layer_norm_eps": 1e-6}
    reader = nn.TransformerEncoder(
        nn.TransformerEncoderLayer(**layer, batch_first=True), 2, enable_nested_tensor=False
    ).eval()
    writer = nn.TransformerDecoder(nn.TransformerDecoderLayer(**layer, batch_first=True), 3).eval()
    for stack, blocks in ((reader, ours.encoder.blocks), (writer, ours.decoder.blocks)):
        for theirs, block in zip(stack.layers, blocks, strict=True):
            fill(theirs, block)
    source, mask, target = inputs()
    memory = reader(embedded(ours, source), src_key_padding_mask=~mask)
    later = torch.ones(9, 9, dtype=torch.bool).triu(1)
    expected = writer(embedded(ours, target), memory, tgt_mask=later, memory_key_padding_mask=~mask)
    tokens, cache = ours.encode(source, mask), ours.new_cache()
    steps = torch.cat([ours.decode(target[:, [place]], tokens, mask, cache) for place in range(9)], dim=1)
    return max(
        largest(tokens[mask], memory[mask]),
        largest(ours.decode(target, tokens, mask), expected),
        largest(steps, expected),
    )


def embedded(ours, ids):
    """Section 3.5 word for word: sin at the even features, cos at the odd ones."""
    tokens = ours.token_embedding.weight[ids] * 48**0.5
    for place in range(ids.shape[1]):
        for i in range(24):
            angle = torch.tensor(place / 10_000 ** (2 * i / 48))
            tokens[:, place, 2 * i] += angle.sin()
            tokens[:, place, 2 * i + 1] += angle.cos()
    return tokens


def fill(theirs, block):
    """Random weights into both; PyTorch numbers a decoder layer's norms 1 to 3, and stacks q, k and v."""
    for parameter in block.parameters():
        parameter.data.add_(torch.randn_like(parameter) * 0.1)
    theirs.self_attn.in_proj_weight.copy_(block.attention.qkv.weight)
    theirs.self_attn.in_proj_bias.copy_(block.attention.qkv.bias)
    theirs.self_attn.out_proj.load_state_dict(block.attention.proj.state_dict())
    theirs.linear1.load_state_dict(block.mlp.fc1.state_dict())
    theirs.linear2.load_state_dict(block.mlp.fc2.state_dict())
    norms = [block.norm1, block.norm2]
    if hasattr(theirs, "multihead_attn"):
        cross = block.cross_attention
        theirs.multihead_attn.in_proj_weight.copy_(torch.cat([cross.q.weight, cross.kv.weight]))
        theirs.multihead_attn.in_proj_bias.copy_(torch.cat([cross.q.bias, cross.kv.bias]))
        theirs.multihead_attn.out_proj.load_state_dict(cross.proj.state_dict())
        norms.insert(1, block.norm_cross)
    for number, norm in enumerate(norms, 1):
        getattr(theirs, f"norm{number}").load_state_dict(norm.state_dict())


CASES: dict[str, Callable[[Path], float]] = {
    "T5ForConditionalGeneration": lambda folder: whole(folder, **FIRST),
    "T5ForConditionalGeneration 1.1": lambda folder: whole(folder, **SECOND),
    "T5ForConditionalGeneration, tied and gated": lambda folder: whole(
        folder, **{**SECOND, "tie_word_embeddings": True}
    ),
    "T5EncoderModel": lambda folder: encoder(folder, **FIRST),
    "T5EncoderModel 1.1": lambda folder: encoder(folder, **SECOND),
    "Transformer of 2017, PyTorch's": against_pytorch,
}


@pytest.mark.parametrize("case", CASES)
def test_random_weights_give_the_same_figures(case, tmp_path):
    assert CASES[case](tmp_path) < 1e-5


@torch.no_grad()
@pytest.mark.parametrize("settings", [FIRST, SECOND], ids=["1.0", "1.1"])
@pytest.mark.parametrize(("beams", "most"), [(1, 8), (2, 3), (4, 12)])
def test_answers_are_those_of_transformers(settings, beams, most, tmp_path):
    peer = peer_of(**settings)
    ours = load(written(peer, tmp_path))
    for seed in range(2):
        torch.manual_seed(seed)
        source = torch.randint(3, 40, (1, 10))
        expected = peer.generate(
            source,
            GenerationConfig(
                max_new_tokens=most, num_beams=beams, num_return_sequences=beams, pad_token_id=0, eos_token_id=1
            ),
        )
        theirs = [tuple(row[1:].tolist()) for row in expected]
        answers = beam_search(AnswerWriter(ours, source), source.new_zeros(1), end=1, most=most, beams=beams)
        width = max(len(answer.ids) for answer in answers)
        assert [answer.ids + (0,) * (width - len(answer.ids)) for answer in answers] == theirs


@torch.no_grad()
def test_a_batch_is_answered_as_transformers_does(tmp_path):
    peer = peer_of(**FIRST)
    ours = load(written(peer, tmp_path))
    source, mask, _ = inputs()
    settings = GenerationConfig(max_new_tokens=15, pad_token_id=1, eos_token_id=1)
    expected = peer.generate(source, settings, attention_mask=mask.long())
    answers = token_by_token(AnswerWriter(ours, source, mask), source.new_zeros(3), end=1, most=15)
    assert torch.equal(answers, expected[:, 1:])


@pytest.mark.parametrize(("buckets", "farthest"), [(32, 128), (8, 12), (6, 100)])
@pytest.mark.parametrize("both_ways", [True, False])
def test_buckets_of_distances(buckets, farthest, both_ways):
    distances = torch.arange(-300, 300)
    theirs = T5Attention._relative_position_bucket(distances, both_ways, buckets, farthest)
    assert torch.equal(distance_bucket(distances, buckets, farthest, both_ways=both_ways), theirs)


@torch.no_grad()
@pytest.mark.parametrize("settings", [FIRST, SECOND], ids=["1.0", "1.1"])
def test_weights_and_config_go_back_out_as_they_came(settings, tmp_path):
    peer = peer_of(**settings)
    ours = load(written(peer, tmp_path))
    file = load_file(tmp_path / "model.safetensors")
    back = to_theirs(ours.state_dict(), LAYOUTS["transformers"], ours.backbone.config)
    assert all(torch.equal(back[name], file[name]) for name in back)
    copies = {"encoder.embed_tokens.weight", "decoder.embed_tokens.weight"}
    assert file.keys() - back.keys() == copies | ({"lm_head.weight"} if settings is FIRST else set())

    config = LAYOUTS["transformers"].write(ours.backbone.config)
    described = LAYOUTS["transformers"].read(config)
    assert models.changed(described.model, **described.changes) == ours.backbone.config
    assert described.options == {"tied": settings is FIRST}
    again = tmp_path / "again"
    again.mkdir()
    (again / "config.json").write_text(json.dumps(config))
    save_file(back, again / "model.safetensors", {"format": "pt"})
    theirs = T5ForConditionalGeneration.from_pretrained(again).eval()
    source, mask, target = inputs()
    out = theirs(input_ids=source, attention_mask=mask.long(), decoder_input_ids=target).logits
    assert largest(ours(source, target, mask), out) < 1e-5


@torch.no_grad()
def test_what_transformers_itself_writes(tmp_path):
    """Without the copies, and with version 5's word for an output that is not scaled."""
    peer = peer_of(**SECOND)
    peer.save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_text(learn(["abcdefg"], 40, TOKENS).to_json())
    source, mask, target = inputs()
    out = peer(input_ids=source, attention_mask=mask.long(), decoder_input_ids=target).logits
    assert largest(load(tmp_path)(source, target, mask), out) < 1e-5


@torch.no_grad()
def test_a_classifiers_file_is_a_backbone(tmp_path):
    peer = peer_of(T5ForSequenceClassification, **FIRST, num_labels=3)
    found = text.load_backbone(written(peer, tmp_path)).backbone
    source, mask, _ = inputs()
    theirs = peer.transformer.encoder(input_ids=source, attention_mask=mask.long()).last_hidden_state
    assert largest(found(source, mask=mask).tokens[mask], theirs[mask]) < 1e-5


@torch.no_grad()
def test_a_file_that_must_be_told(tmp_path):
    peer = peer_of(**SECOND)
    folder = written(peer, tmp_path)
    (folder / "config.json").unlink()
    config = {"width": 48, "depth": 2, "decoder_depth": 2, "heads": 4, "mlp": 80, "head_width": 16, "vocabulary": 40}
    ours = load(folder, layout="transformers", model="t5-v1_1-small", config=config)
    source, mask, target = inputs()
    out = peer(input_ids=source, attention_mask=mask.long(), decoder_input_ids=target).logits
    assert not ours.options.tied
    assert largest(ours(source, target, mask), out) < 1e-5


def test_an_encoder_alone_does_not_write(tmp_path):
    with pytest.raises(SettingError, match="a model that reads and writes"):
        load(written(peer_of(T5EncoderModel, **FIRST), tmp_path))
    assert LAYOUTS["transformers"].write(T5(models.changed("t5-nano", decoder_depth=0)).config)["architectures"] == [
        "T5EncoderModel"
    ]


def test_what_ours_has_not_is_said():
    with pytest.raises(CheckpointError, match="MLP is gated-silu"):
        LAYOUTS["transformers"].read({"model_type": "t5", "feed_forward_proj": "gated-silu"})
    with pytest.raises(SettingError, match="no gated MLP with relu"):
        LAYOUTS["transformers"].write(models.changed("t5-small", gated=True))
    assert LAYOUTS["transformers"].read({"model_type": "bert"}) is None
