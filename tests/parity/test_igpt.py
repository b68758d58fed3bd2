"""iGPT with random weights against Transformers' ImageGPT, and against OpenAI's and teddykoker's programs by formula.

With `VITRAIL_DATA` also teddykoker's trained weights, whose loss is what his program computes.
"""

import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from transformers import (
    ImageGPTConfig,
    ImageGPTForCausalImageModeling,
    ImageGPTForImageClassification,
    ImageGPTModel,
)
from transformers.models.imagegpt.image_processing_pil_imagegpt import ImageGPTImageProcessorPil

from vitrail.data.dataset import open_dataset
from vitrail.data.loader import EvaluationBatches
from vitrail.data.source import Subset
from vitrail.errors import CheckpointError
from vitrail.models.igpt import LAYOUTS
from vitrail.models.igpt.keys import NEXT_PIXEL
from vitrail.objectives import MaskedPixel, NextPixel
from vitrail.recipes.evaluating.objective import mean_losses
from vitrail.weights import objective
from vitrail.weights.load import load, load_pretrained
from vitrail.weights.rename import to_theirs

D, LAYERS, HEADS, COLOURS, SIDE = 24, 3, 2, 16, 6
SHAPE = {"n_embd": D, "n_layer": LAYERS, "n_head": HEADS, "vocab_size": COLOURS + 1, "n_positions": SIDE * SIDE}
OURS = {"width": D, "depth": LAYERS, "heads": HEADS, "mlp": 4 * D, "image_size": (SIDE, SIDE), "colours": COLOURS}
TEDDYKOKER = "checkpoints/image_gpt_mnist/mnist_gen_state_dict.pt"


def palette(channels=3):
    return np.random.default_rng(0).uniform(-1, 1, (COLOURS, channels)).astype(np.float32)


def photos(count=3, channels=3):
    return torch.rand(count, channels, SIDE, SIDE, generator=torch.Generator().manual_seed(1)) * 2 - 1


def shifted(numbers):
    """What Transformers' model is given so that it sees what ours does: the start first, and not the last pixel."""
    return F.pad(numbers, (1, 0), value=COLOURS)[:, :-1]


def published(kind, folder, **config):
    """A network of Transformers with random weights and its palette, written as on the Hub."""
    torch.manual_seed(0)
    peer = kind(ImageGPTConfig(**SHAPE, **config)).eval()
    for parameter in peer.parameters():
        parameter.data.copy_(parameter + torch.randn_like(parameter) * 0.1)
    peer.save_pretrained(folder)
    size = {"height": SIDE, "width": SIDE}
    ImageGPTImageProcessorPil(clusters=palette().tolist(), size=size).save_pretrained(folder)
    return peer


def largest(ours, theirs):
    assert ours.shape == theirs.shape
    return (ours - theirs).abs().max().item()


@torch.no_grad()
def causal_modelling(folder, **config):
    peer = published(ImageGPTForCausalImageModeling, folder, **config)
    ours = load(folder)
    assert isinstance(ours, NextPixel)
    numbers = ours.backbone.numbers(photos())
    return largest(ours.logits(numbers), peer(shifted(numbers)).logits)


@torch.no_grad()
def features(folder):
    peer = published(ImageGPTModel, folder)
    found = load_pretrained(folder).changed(feature_layer=LAYERS)
    numbers = found.backbone.numbers(photos())
    return largest(found.backbone(photos()).tokens, peer(shifted(numbers)).last_hidden_state)


@torch.no_grad()
def classification(folder):
    peer = published(ImageGPTForImageClassification, folder, num_labels=5)
    task = load(folder)
    assert len(task.classes) == 5
    return largest(task(photos()), peer(task.backbone.numbers(photos())).logits)


def openai_variables(bert=False):
    """Variables with the names and shapes of OpenAI's program."""
    rng, h, m = np.random.default_rng(2), D // HEADS, SIDE * SIDE
    shapes = {"wpe": (m, D), "wte": (COLOURS, D), "wtet": (COLOURS, D), "ln_f/g": (D,)}
    shapes |= {} if bert else {"sos": (D,)}
    for i in range(LAYERS):
        shapes |= {f"h{i}/attn/{part}_proj": (HEADS, h, D) for part in "qkvc"}
        shapes |= {f"h{i}/ln_1/g": (D,), f"h{i}/ln_2/g": (D,)}
        shapes |= {f"h{i}/mlp/c_fc/w": (D, 4 * D), f"h{i}/mlp/c_proj/w": (4 * D, D)}
    return {f"model/{name}": rng.normal(0, 0.3, shape).astype(np.float32) for name, shape in shapes.items()}


def openai_logits(variables, numbers, hidden=None):
    """Sections 3.2 and 3.3 of the paper in the variables of the released program."""
    w = {name.removeprefix("model/"): torch.from_numpy(x) for name, x in variables.items()}

    def norm(x, name):
        return w[f"{name}/g"] * x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt()

    x = w["wte"][numbers]
    x = torch.cat([w["sos"].expand(len(x), 1, D), x[:, :-1]], dim=1) if hidden is None else x * ~hidden[..., None]
    x = x + w["wpe"]
    for i in range(LAYERS):
        n = norm(x, f"h{i}/ln_1")
        q, k, v = (torch.einsum("bsf,hef->bhse", n, w[f"h{i}/attn/{part}_proj"]) for part in "qkv")
        products = torch.einsum("bhse,bhte->bhst", q, k) / math.sqrt(D // HEADS)
        if hidden is None:
            products = products.masked_fill(torch.ones_like(products).triu(1).bool(), float("-inf"))
        attended = torch.einsum("bhst,bhte->bhse", products.softmax(-1), v)
        x = x + torch.einsum("bhse,hef->bsf", attended, w[f"h{i}/attn/c_proj"])
        inner = norm(x, f"h{i}/ln_2") @ w[f"h{i}/mlp/c_fc/w"]
        x = x + (inner * (1.702 * inner).sigmoid()) @ w[f"h{i}/mlp/c_proj/w"]
    return norm(x, "ln_f") @ w["wtet"].T


@torch.no_grad()
def openai(folder, bert=False):
    variables = openai_variables(bert)
    np.savez(folder / "model.npz", **variables)
    np.save(folder / "kmeans_centers.npy", palette())
    said = {**OURS, "causal": False} if bert else OURS
    ours = load(folder / "model.npz", layout="openai", model="igpt", config=said)
    assert type(ours) is (MaskedPixel if bert else NextPixel)
    numbers = ours.backbone.numbers(photos())
    hidden = torch.rand(numbers.shape) < 0.3 if bert else None
    return largest(ours.logits(numbers, hidden), openai_logits(variables, numbers, hidden))


class TeddykokerBlock(nn.Module):
    def __init__(self):
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(D), nn.LayerNorm(D)
        self.attn = nn.MultiheadAttention(D, HEADS, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(D, 4 * D), nn.GELU(), nn.Linear(4 * D, D))

    def forward(self, x):
        x = self.ln_1(x)  # and what it was before is gone
        mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1])
        x = x + self.attn(x, x, x, attn_mask=mask, need_weights=False)[0]
        return x + self.mlp(self.ln_2(x))


class Teddykoker(nn.Module):
    def __init__(self):
        super().__init__()
        self.sos = nn.Parameter(torch.randn(D))
        self.token_embeddings = nn.Embedding(COLOURS, D)
        self.position_embeddings = nn.Embedding(SIDE * SIDE, D)
        self.layers = nn.ModuleList(TeddykokerBlock() for _ in range(LAYERS))
        self.ln_f = nn.LayerNorm(D)
        self.head = nn.Linear(D, COLOURS, bias=False)
        self.clf_head = nn.Linear(D, 10)

    def forward(self, numbers):
        x = torch.cat([self.sos.expand(len(numbers), 1, D), self.token_embeddings(numbers)[:, :-1]], dim=1)
        x = x + self.position_embeddings.weight
        for layer in self.layers:
            x = layer(x)
        return self.head(self.ln_f(x))


@torch.no_grad()
def teddykoker(folder):
    torch.manual_seed(0)
    peer = Teddykoker().eval()
    shades = torch.from_numpy(palette(1)) / 2 + 0.5  # of 0 … 1
    tensors = {"centroids": shades, **{f"gpt.{name}": x for name, x in peer.state_dict().items()}}
    torch.save(tensors, folder / "state_dict.pt")
    ours = load(folder / "state_dict.pt", layout="image-gpt", model="igpt", config={**OURS, "channels": 1})
    pixels = photos(channels=1)
    numbers = ((pixels / 2 + 0.5).reshape(3, -1, 1) - shades[:, 0]).abs().argmin(dim=-1)
    assert torch.equal(ours.backbone.numbers(pixels), numbers)
    return largest(ours.logits(numbers), peer(numbers))


CASES = {
    "ImageGPTForCausalImageModeling": causal_modelling,
    "ImageGPTForCausalImageModeling, GELU by tanh": lambda folder: causal_modelling(
        folder, activation_function="gelu_new", n_inner=40, layer_norm_epsilon=1e-3
    ),
    "ImageGPTModel": features,
    "ImageGPTForImageClassification": classification,
    "OpenAI's variables": openai,
    "OpenAI's variables, BERT": lambda folder: openai(folder, bert=True),
    "teddykoker's image-gpt": teddykoker,
}


@pytest.mark.parametrize("name", CASES)
def test_logits_agree(name, tmp_path):
    assert CASES[name](tmp_path) < 1e-4


def test_its_image_processor_gives_the_same_numbers(tmp_path):
    published(ImageGPTModel, tmp_path)
    found, picture = load_pretrained(tmp_path), np.random.default_rng(3).integers(256, size=(9, 13, 3), dtype=np.uint8)
    theirs = ImageGPTImageProcessorPil.from_pretrained(tmp_path)(picture, return_tensors="pt")["input_ids"]
    seen = torch.from_numpy(found.preprocess.view(picture)[0]).permute(2, 0, 1)[None]
    assert torch.equal(found.backbone.numbers(found.preprocess.normalize(seen)), theirs.reshape(1, -1))


def test_the_file_that_was_published_first_states_less(tmp_path):
    """Neither mean and deviation nor rescaling: the pixels were -1 … 1 without being told."""
    published(ImageGPTForCausalImageModeling, tmp_path)
    first = {"clusters": palette().tolist(), "do_normalize": True, "do_resize": True, "resample": 2, "size": SIDE}
    first["feature_extractor_type"] = "ImageGPTFeatureExtractor"
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(first))
    preprocess = load(tmp_path).preprocess
    assert (preprocess.mean, preprocess.std, preprocess.size) == ((0.5,) * 3, (0.5,) * 3, (SIDE, SIDE))


@pytest.mark.parametrize("layout", ["openai", "transformers", "image-gpt"])
def test_names_go_both_ways(layout, tmp_path):
    case = {"openai": openai, "transformers": causal_modelling, "image-gpt": teddykoker}[layout]
    case(tmp_path)
    file = {"openai": "model.npz", "image-gpt": "state_dict.pt"}.get(layout)
    said = {"layout": layout, "model": "igpt", "config": {**OURS, "channels": 1 if layout == "image-gpt" else 3}}
    ours = load(tmp_path / file, **said) if file else load(tmp_path)
    back = to_theirs(ours.state_dict(), NEXT_PIXEL[layout], ours.backbone.config)
    prefix = NEXT_PIXEL[layout].prefix
    given = {
        "openai": lambda: {k: torch.from_numpy(x) for k, x in np.load(tmp_path / "model.npz").items()},
        "image-gpt": lambda: torch.load(tmp_path / "state_dict.pt", weights_only=True),
        "transformers": lambda: ImageGPTForCausalImageModeling.from_pretrained(tmp_path).state_dict(),
    }[layout]()
    same = {name.removeprefix(prefix): x for name, x in given.items() if not name.startswith("gpt.clf_head")}
    back = {name.removeprefix(prefix): x for name, x in back.items()}
    assert same.keys() == back.keys() - ({"clusters"} if layout != "image-gpt" else set())
    for name, x in same.items():
        torch.testing.assert_close(back[name], x, atol=1e-7, rtol=0)


def test_without_a_palette_weights_are_not_enough(tmp_path):
    published(ImageGPTForCausalImageModeling, tmp_path)
    (tmp_path / "preprocessor_config.json").unlink()
    with pytest.raises(CheckpointError, match="missing clusters"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("clusters", "words"), [([[1.0, 2.0], [3.0]], "no table of numbers"), ([1.0, 2.0], "not one row a colour")]
)
def test_a_palette_that_is_none(clusters, words, tmp_path):
    published(ImageGPTForCausalImageModeling, tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"clusters": clusters}))
    with pytest.raises(CheckpointError, match=words):
        load(tmp_path)


def test_a_file_of_a_palette_that_is_damaged(tmp_path):
    openai(tmp_path)
    (tmp_path / "kmeans_centers.npy").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match=r"kmeans_centers.npy is damaged"):
        objective.load(tmp_path / "model.npz", layout="openai", model="igpt", config=OURS)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx=True"),
        ({"n_positions": 35}, "35 pixels, which are no square"),
        ({"activation_function": "silu"}, "the activation silu"),
    ],
)
def test_what_ours_cannot_be(config, words):
    with pytest.raises(CheckpointError, match=words):
        LAYOUTS["transformers"].read({"model_type": "imagegpt", **config})


def test_the_published_sizes_are_known_by_their_shape():
    config = ImageGPTConfig(architectures=["ImageGPTForCausalImageModeling"]).to_dict()
    described = NEXT_PIXEL["transformers"].read(config)
    assert (described.model, described.changes) == ("igpt-s", {"bias": True})


@pytest.mark.skipif("VITRAIL_DATA" not in os.environ, reason="VITRAIL_DATA is not set")
def test_trained_weights_of_teddykoker_on_mnist():
    """0.3028 nats a pixel on the first 60 test images, as his own program computes it with these weights."""
    root = Path(os.environ["VITRAIL_DATA"])
    shape = {"width": 16, "depth": 8, "heads": 2, "mlp": 64, "image_size": (28, 28), "channels": 1, "colours": 16}
    ours = load(root / TEDDYKOKER, layout="image-gpt", model="igpt", config=shape)
    images = Subset(open_dataset(str(root / "mnist")).splits["test"], range(60))
    batches = EvaluationBatches(images, 10, ours.preprocess, 20)
    assert mean_losses(ours, batches, torch.device("cpu"), torch.float32)["loss"] == pytest.approx(0.3028, abs=2e-4)
