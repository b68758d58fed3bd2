"""GPT with random weights: what Transformers writes, and OpenAI's names, opened by us, against its own figures."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import GPT2Config, GPT2LMHeadModel, GPT2Model
from transformers.models.gpt_neox.modeling_gpt_neox import apply_rotary_pos_emb as rotate_halves
from transformers.models.gptj.modeling_gptj import apply_rotary_pos_emb as rotate_neighbours

from vitrail import models
from vitrail.data.text.characters import learn
from vitrail.errors import CheckpointError
from vitrail.models.gpt import LAYOUTS
from vitrail.nn.rope import rotary_1d, rotate
from vitrail.weights import text
from vitrail.weights.load import load
from vitrail.weights.rename import to_ours, to_theirs

SHAPE = {"n_embd": 48, "n_layer": 3, "n_head": 4, "vocab_size": 40, "n_positions": 24}
OTHERS = {"n_inner": 80, "activation_function": "gelu", "layer_norm_epsilon": 1e-3}


def peer_of(kind=GPT2LMHeadModel, **settings):
    torch.manual_seed(0)
    peer = kind(GPT2Config(**SHAPE, bos_token_id=0, eos_token_id=0, **settings))
    for parameter in peer.parameters():  # values that none of them starts with
        parameter.data.copy_(parameter + torch.randn_like(parameter) * 0.1)
    return peer.eval()


def with_tokenizer(folder):
    (folder / "tokenizer.json").write_text(learn(["abcdefghijk"], 40, ["<|endoftext|>"]).to_json())
    return folder


def written(peer, folder):
    peer.save_pretrained(folder)
    return with_tokenizer(folder)


def ids():
    return torch.randint(40, (3, 24), generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def predicting(folder: Path, **settings) -> float:
    peer = peer_of(**settings)
    ours = load(written(peer, folder))
    return float((ours(ids()) - peer(ids()).logits).abs().max())


@torch.no_grad()
def without_a_head(folder: Path) -> float:
    peer = peer_of(GPT2Model)
    ours = text.load_backbone(written(peer, folder)).backbone
    return float((ours(ids()).tokens - peer(ids()).last_hidden_state).abs().max())


@torch.no_grad()
def as_gpt2_was_published(folder: Path) -> float:
    """Without the prefix, with the masks of every block: as the file of openai-community/gpt2 is."""
    peer = peer_of()
    peer.config.save_pretrained(with_tokenizer(folder))
    tensors = {name.removeprefix("transformer."): x.clone() for name, x in peer.state_dict().items()}
    for block in range(3):
        tensors[f"h.{block}.attn.bias"] = torch.ones(24, 24).tril().view(1, 1, 24, 24)
        tensors[f"h.{block}.attn.masked_bias"] = torch.tensor(-1e4)
    torch.save(tensors, folder / "pytorch_model.bin")
    ours = load(folder)
    return float((ours(ids()) - peer(ids()).logits).abs().max())


@torch.no_grad()
def as_openai_wrote_it(folder: Path) -> float:
    """The variables of its TensorFlow program, with ``hparams.json`` beside them."""
    peer = peer_of()
    np.savez(with_tokenizer(folder) / "model.npz", **openai_names(peer))
    hparams = {"n_vocab": 40, "n_ctx": 24, "n_embd": 48, "n_head": 4, "n_layer": 3}
    (folder / "hparams.json").write_text(json.dumps(hparams))
    ours = load(folder)
    return float((ours(ids()) - peer(ids()).logits).abs().max())


def openai_names(peer):
    """As github.com/openai/gpt-2 calls them in src/model.py; its linear maps have the shape (1, in, out)."""
    tensors = {}
    for name, x in peer.transformer.state_dict().items():
        *scopes, kind = name.split(".")
        if scopes in (["wte"], ["wpe"]):
            tensors[f"model/{scopes[0]}"] = x.numpy()
            continue
        if scopes[0] == "h":
            scopes = [f"h{scopes[1]}", *scopes[2:]]
        is_norm = scopes[-1].startswith("ln_")
        last = {"weight": "g" if is_norm else "w", "bias": "b"}[kind]
        tensors["/".join(["model", *scopes, last])] = (x[None] if last == "w" else x).numpy()
    return tensors


CASES: dict[str, Callable[[Path], float]] = {
    "GPT2LMHeadModel": predicting,
    "GPT2LMHeadModel, another MLP, GELU and epsilon": lambda folder: predicting(folder, **OTHERS),
    "GPT2LMHeadModel, an output layer of its own": lambda folder: predicting(folder, tie_word_embeddings=False),
    "GPT2Model": without_a_head,
    "pytorch_model.bin of gpt2": as_gpt2_was_published,
    "OpenAI's variables": as_openai_wrote_it,
}


@pytest.mark.parametrize("case", CASES)
def test_logits_are_theirs(case, tmp_path):
    assert CASES[case](tmp_path) <= 1e-5


@pytest.mark.parametrize("settings", [{}, OTHERS, {"tie_word_embeddings": False}])
def test_what_was_read_can_be_written(settings, tmp_path):
    peer = peer_of(**settings)
    ours = load(written(peer, tmp_path))
    file = load_file(tmp_path / "model.safetensors")
    back = to_theirs(ours.state_dict(), LAYOUTS["transformers"], ours.backbone.config)
    assert back.keys() == file.keys()
    assert all(torch.equal(x, file[name]) for name, x in back.items())
    config = LAYOUTS["transformers"].write(ours.backbone.config)
    GPT2Config(**config)  # which knows them all
    described = LAYOUTS["transformers"].read(config)
    assert models.changed(described.model, **described.changes) == ours.backbone.config


def test_openais_variables_go_back_out():
    theirs = {name: torch.from_numpy(x) for name, x in openai_names(peer_of()).items()}
    hparams = {"n_vocab": 40, "n_ctx": 24, "n_embd": 48, "n_head": 4, "n_layer": 3}
    described = LAYOUTS["openai"].read(hparams)
    model = models.create_text(described.model, **described.changes)
    ours, difference = to_ours(theirs, model.state_dict(), LAYOUTS["openai"], model.config)
    assert not difference, str(difference)
    back = to_theirs(ours, LAYOUTS["openai"], model.config)
    assert back.keys() == theirs.keys()
    assert all(torch.equal(x, theirs[name]) for name, x in back.items())


@pytest.mark.parametrize("name", ["gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl"])
def test_the_released_sizes_are_recognised(name):
    config = models.config(name)
    stated = LAYOUTS["transformers"].write(config)
    assert LAYOUTS["transformers"].read(stated) == (name, {}, {})
    hparams = {"n_vocab": 50257, "n_ctx": 1024, "n_embd": config.width, "n_head": config.heads, "n_layer": config.depth}
    assert LAYOUTS["openai"].read(hparams) == (name, {}, {})


@pytest.mark.parametrize(
    ("stated", "words"),
    [
        ({"scale_attn_by_inverse_layer_idx": True}, "has scale_attn_by_inverse_layer_idx=True"),
        ({"add_cross_attention": True}, "has add_cross_attention=True"),
        ({"activation_function": "silu"}, "has the activation silu"),
    ],
)
def test_what_ours_has_not_is_refused(stated, words, tmp_path):
    peer_of().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, **stated}))
    with pytest.raises(CheckpointError, match=words):
        load(tmp_path)


def test_a_tensor_too_many_or_too_few_is_named(tmp_path):
    file = written(peer_of(), tmp_path) / "model.safetensors"
    tensors = load_file(file)
    save_file({**tensors, "h.0.attn.extra": torch.ones(1)}, file)
    with pytest.raises(CheckpointError, match=r"unexpected h\.0\.attn\.extra"):
        load(tmp_path)
    save_file({name: x for name, x in tensors.items() if "h.1.mlp.c_fc.bias" not in name}, file)
    with pytest.raises(CheckpointError, match=r"missing h\.1\.mlp\.c_fc\.bias"):
        load(tmp_path)


# ---------------------------------------------------------------------------------------------------- rotary positions


def angles_of_transformers(length, width, base=10_000.0):
    """Cosine and sine of the angles, once for each pair, as both of its models compute them."""
    frequencies = 1.0 / (base ** (torch.arange(0, width, 2, dtype=torch.int64).float() / width))
    return torch.outer(torch.arange(length).float(), frequencies)


def test_halves_turn_as_in_gpt_neox():
    torch.manual_seed(0)
    q, k = torch.randn(2, 3, 17, 16), torch.randn(2, 3, 17, 16)
    angles = angles_of_transformers(17, 16)
    both = torch.cat([angles, angles], dim=-1)[None]
    turned = rotate_halves(q, k, both.cos(), both.sin())
    for ours, theirs in zip((rotate(x, rotary_1d(17, 16, pairs="halves")) for x in (q, k)), turned, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_neighbours_turn_as_in_gpt_j():
    torch.manual_seed(0)
    x = torch.randn(2, 3, 17, 16)
    angles = angles_of_transformers(17, 16)[None].expand(2, -1, -1)
    theirs = rotate_neighbours(x.transpose(1, 2), angles.sin(), angles.cos()).transpose(1, 2)
    torch.testing.assert_close(rotate(x, rotary_1d(17, 16, pairs="neighbours")), theirs, atol=1e-5, rtol=1e-5)
