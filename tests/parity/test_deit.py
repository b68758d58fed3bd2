"""DeiT against Transformers' two classification models, on tiny random networks, through the key tables."""

import json

import pytest
import torch
import transformers
from safetensors.torch import load_file
from transformers import DeiTConfig

from vitrail import models
from vitrail.heads import CLASSIFIERS
from vitrail.models.deit.keys import LAYOUTS, write_transformers
from vitrail.weights.rename import to_ours, to_theirs

SHAPE = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 40, "patch_size": 8}
KINDS = ["DeiTForImageClassification", "DeiTForImageClassificationWithTeacher"]


def random_peer(kind, size=(24, 40), **config):
    torch.manual_seed(0)
    model = getattr(transformers, kind)(DeiTConfig(**SHAPE, image_size=list(size), num_labels=5, **config)).eval()
    for parameter in model.parameters():
        parameter.data.add_(torch.randn_like(parameter) * 0.1)
    return model


class Ours(torch.nn.Module):
    """Backbone and classifier under the names that a task has."""

    def __init__(self, described, classes=5):
        super().__init__()
        self.backbone = models.create(described.model, **described.changes)
        self.head = CLASSIFIERS[self.backbone.classifier](self.backbone, classes)

    def forward(self, images):
        return self.head(self.backbone(images))


def opened(tensors, config, layout):
    """The model that ``config`` describes with the tensors of that layout, which must fit exactly."""
    ours = Ours(LAYOUTS["transformers"].read(config)).eval()
    state, difference = to_ours(tensors, ours.state_dict(), LAYOUTS[layout], ours.backbone.config)
    assert not difference, str(difference)
    ours.load_state_dict(state)
    return ours


def saved(peer, folder):
    peer.save_pretrained(folder)
    return load_file(folder / "model.safetensors"), json.loads((folder / "config.json").read_text())


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("size", "changes"), [((24, 40), {}), ((32, 32), {"layer_norm_eps": 1e-6, "num_channels": 1})])
def test_logits_and_tokens_agree(kind, size, changes, tmp_path):
    peer = random_peer(kind, size, **changes)
    tensors, config = saved(peer, tmp_path)
    ours = opened(tensors, config, "transformers")
    images = torch.randn(2, changes.get("num_channels", 3), *size)
    torch.testing.assert_close(ours(images), peer(images).logits, atol=1e-5, rtol=1e-5)
    tokens = peer.deit(images).last_hidden_state
    torch.testing.assert_close(ours.backbone(images).tokens, tokens, atol=1e-5, rtol=1e-5)
    back = to_theirs(ours.state_dict(), LAYOUTS["transformers"], ours.backbone.config)
    assert back.keys() == tensors.keys()
    assert all(torch.equal(back[name], tensors[name]) for name in tensors)


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_names_in_memory(kind, tmp_path):
    peer = random_peer(kind)
    ours = opened(peer.state_dict(), saved(peer, tmp_path)[1], "transformers-5")
    images = torch.randn(2, 3, 24, 40)
    torch.testing.assert_close(ours(images), peer(images).logits, atol=1e-5, rtol=1e-5)
    back = to_theirs(ours.state_dict(), LAYOUTS["transformers-5"], ours.backbone.config)
    assert all(torch.equal(back[name], tensor) for name, tensor in peer.state_dict().items())


@torch.no_grad()
def test_a_model_without_classifier_opens(tmp_path):
    peer = random_peer("DeiTModel")
    tensors, config = saved(peer, tmp_path)
    described = LAYOUTS["transformers"].read(config)
    backbone = models.create(described.model, **described.changes).eval()
    state, difference = to_ours(tensors, backbone.state_dict(), LAYOUTS["transformers"], backbone.config)
    assert not difference, str(difference)
    backbone.load_state_dict(state)
    images = torch.randn(2, 3, 24, 40)
    torch.testing.assert_close(backbone(images).tokens, peer(images).last_hidden_state, atol=1e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_what_we_write_is_what_transformers_loads(kind, tmp_path):
    peer = random_peer(kind)
    ours = opened(*saved(peer, tmp_path), "transformers")
    written = write_transformers(ours.backbone.config)
    assert written["architectures"] == [kind]
    again = getattr(transformers, kind)(DeiTConfig(**written, num_labels=5)).eval()
    again.load_state_dict(to_theirs(ours.state_dict(), LAYOUTS["transformers-5"], ours.backbone.config))
    images = torch.randn(2, 3, 24, 40)
    torch.testing.assert_close(again(images).logits, ours(images), atol=1e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(48, 48), (16, 40)])
def test_positions_for_another_size(kind, size, tmp_path):
    """Transformers resamples the positions of square models alone."""
    peer = random_peer(kind, (32, 32))
    ours = opened(*saved(peer, tmp_path), "transformers")
    described = LAYOUTS["transformers"].read(peer.config.to_dict() | {"architectures": [kind]})
    other = Ours(described._replace(changes={**described.changes, "image_size": size})).eval()
    backbone = other.backbone.adapted(ours.backbone.state_dict(), ours.backbone.config, "bicubic")
    other.backbone.load_state_dict(backbone)
    other.head.load_state_dict(ours.head.state_dict())
    images = torch.randn(2, 3, *size)
    expected = peer(images, interpolate_pos_encoding=True).logits
    torch.testing.assert_close(other(images), expected, atol=1e-5, rtol=1e-5)
