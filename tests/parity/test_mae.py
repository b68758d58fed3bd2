"""MAE with random weights, encoder and decoder, from files: against Transformers' and against the authors' code.

Their code needs an interpreter with timm, `VITRAIL_PEERS`, and a clone of it, `mae` in `VITRAIL_REPOSITORIES`.
"""

import json
import os
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import ViTMAEConfig, ViTMAEForPreTraining

from vitrail import models
from vitrail.objectives import MAE
from vitrail.objectives.mae import resolved
from vitrail.objectives.mae_keys import LAYOUTS
from vitrail.weights import load as doorway
from vitrail.weights import objective
from vitrail.weights.rename import to_theirs

PEERS, CLONES = os.environ.get("VITRAIL_PEERS"), os.environ.get("VITRAIL_REPOSITORIES")

ENCODER = {"hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 80}
SMALL_DECODER = {
    "decoder_hidden_size": 32,
    "decoder_num_hidden_layers": 2,
    "decoder_num_attention_heads": 2,
    "decoder_intermediate_size": 56,
}
SHAPE = {**ENCODER, **SMALL_DECODER, "image_size": 48, "patch_size": 8}
AUTHORS_ENCODER = {"img_size": 48, "patch_size": 8, "embed_dim": 48, "depth": 3, "num_heads": 4, "mlp_ratio": 2}
AUTHORS = {**AUTHORS_ENCODER, "decoder_embed_dim": 32, "decoder_depth": 2, "decoder_num_heads": 2}
OURS = {"width": 48, "depth": 3, "heads": 4, "mlp": 96, "image_size": (48, 48), "patch_size": 8}
DECODER = {"decoder_width": 32, "decoder_depth": 2, "decoder_heads": 2, "decoder_mlp": 64}


def transformers_peer(**settings) -> ViTMAEForPreTraining:
    """With random values for all parameters, the fixed positions among them."""
    torch.manual_seed(0)
    peer = ViTMAEForPreTraining(ViTMAEConfig(**SHAPE, **settings))
    for parameter in peer.parameters():
        parameter.data.add_(torch.randn_like(parameter) * 0.1)
    return peer.eval()


def difference(ours: MAE, images, noise, painted, hidden, loss) -> float:
    """The largest, of the pixels and of the loss; infinite where other patches are hidden."""
    seen, unseen = noise.argsort(dim=1).tensor_split([ours.seen], dim=1)
    if not torch.equal(torch.zeros_like(hidden).scatter(1, unseen, 1.0), hidden):
        return float("inf")
    ours.order = lambda draws: noise.argsort(dim=1)
    batch = type("Batch", (), {"images": images, "draws": images})
    return max((ours.paint(images, seen) - painted).abs().max(), (ours.loss(batch)["loss"] - loss).abs()).item()


@torch.no_grad()
def with_transformers(folder: Path, in_memory: bool = False, **settings) -> float:
    """Build, save, load and compare; ``in_memory``: under the names that its version 5 has there, not in files."""
    peer = transformers_peer(**settings)
    peer.save_pretrained(folder)
    if in_memory:
        save_file({name: value.contiguous() for name, value in peer.state_dict().items()}, folder / "model.safetensors")
    ours = objective.load(folder)
    images, noise = torch.randn(3, peer.config.num_channels, 48, 48), torch.rand(3, 36)
    theirs = peer(images, noise=noise)
    return difference(ours, images, noise, theirs.logits, theirs.mask, theirs.loss)


@torch.no_grad()
def with_authors(folder: Path, normalise_patches: bool = False) -> float:
    """The same with the authors' code, whose files do not say what they are."""
    if not (PEERS and CLONES):
        pytest.skip("VITRAIL_PEERS names no interpreter with timm, or VITRAIL_REPOSITORIES no folder with clones")
    shape = json.dumps({**AUTHORS, "norm_pix_loss": normalise_patches})
    script = Path(__file__).parent / "authors_mae.py"
    subprocess.run([PEERS, script, Path(CLONES, "mae"), folder, shape], check=True, capture_output=True, text=True)
    stated = {"layout": "mae", "model": "vit", "config": OURS}
    options = {**DECODER, "normalise_patches": normalise_patches}
    ours = objective.load(folder / "weights.pth", **stated, options=options)
    return difference(ours, **load_file(folder / "answers.safetensors"))


CASES: dict[str, Callable[[Path], float]] = {
    "Transformers": with_transformers,
    "Transformers, normalised patches": partial(with_transformers, norm_pix_loss=True),
    "Transformers 5 in memory": partial(with_transformers, in_memory=True),
    "Transformers 5 in memory, normalised patches": partial(with_transformers, in_memory=True, norm_pix_loss=True),
    "Transformers, grey, tanh, no biases, 60 %": partial(
        with_transformers, num_channels=1, hidden_act="gelu_pytorch_tanh", qkv_bias=False, mask_ratio=0.6
    ),
    "authors' code": with_authors,
    "authors' code, normalised patches": partial(with_authors, normalise_patches=True),
}


@pytest.mark.parametrize("name", CASES)
def test_pixels_masks_and_loss_are_theirs(name, tmp_path):
    assert CASES[name](tmp_path) <= 1e-4


@pytest.mark.parametrize("layout", ["transformers", "transformers-5"])
def test_it_goes_back_out(layout, tmp_path):
    peer = transformers_peer()
    peer.save_pretrained(tmp_path)
    ours = objective.load(tmp_path)
    back = to_theirs(ours.state_dict(), LAYOUTS[layout], ours.backbone.config)
    if layout == "transformers-5":
        assert back.keys() == peer.state_dict().keys()
    save_file(back, tmp_path / "model.safetensors")
    again = ViTMAEForPreTraining.from_pretrained(tmp_path).state_dict()
    assert all(torch.equal(value, again[name]) for name, value in peer.state_dict().items())


def test_the_one_doorway_knows_it_by_its_config(tmp_path):
    transformers_peer(mask_ratio=0.5, norm_pix_loss=True).save_pretrained(tmp_path)
    found = doorway.load(tmp_path)
    assert isinstance(found, MAE)
    expected = MAE.Options(0.5, True, decoder_width=32, decoder_depth=2, decoder_heads=2, decoder_mlp=56)
    assert (found.options, found.seen) == (expected, 18)
    assert found.preprocess.mean == (0.485, 0.456, 0.406)
    encoder = doorway.load_pretrained(tmp_path).backbone
    assert torch.equal(encoder.blocks[0].mlp.fc1.weight, found.backbone.blocks[0].mlp.fc1.weight)


def test_sizes_b_l_and_h_have_the_papers_decoder():
    for name in ("vit-b16", "vit-l16", "vit-h14"):
        config = models.config(name)
        wanted = MAE.Options(decoder_width=512, decoder_depth=8, decoder_heads=16, decoder_mlp=2048)
        assert resolved(MAE.Options(), config) == wanted
