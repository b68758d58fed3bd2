"""DINOv3 against Transformers' DINOv3ViTModel on tiny random networks, through the key tables."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, DINOv3ViTConfig, DINOv3ViTModel

from vitrail import models
from vitrail.models.dinov3.keys import LAYOUTS
from vitrail.weights.rename import to_ours, to_theirs

SHAPE = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 40, "patch_size": 8}
VARIANTS = {
    "plain": {"num_register_tokens": 4},
    "gated": {"num_register_tokens": 4, "use_gated_mlp": True, "hidden_act": "silu"},
    "without biases and registers": {"query_bias": False, "value_bias": False, "num_channels": 1},
}


@pytest.fixture(params=VARIANTS)
def peer(request):
    torch.manual_seed(0)
    model = DINOv3ViTModel(DINOv3ViTConfig(**SHAPE, image_size=[24, 40], **VARIANTS[request.param])).eval()
    for parameter in model.parameters():
        parameter.data.add_(torch.randn_like(parameter) * 0.1)
    return model


def opened(tensors, config, layout):
    """The model that ``config`` describes with the tensors of that layout, which must fit exactly."""
    described = LAYOUTS[layout].read(config)
    ours = models.create(described.model, **described.changes).eval()
    state, difference = to_ours(tensors, ours.state_dict(), LAYOUTS[layout], ours.config)
    assert not difference, str(difference)
    ours.load_state_dict(state)
    return ours


def assert_equal_outputs(ours, peer, size):
    images = torch.randn(2, peer.config.num_channels, *size)
    expected, features = peer(images), ours(images)
    assert features.grid == (size[0] // 8, size[1] // 8)
    torch.testing.assert_close(features.tokens, expected.last_hidden_state, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(features.pooled, expected.pooler_output, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("size", [(24, 40), (32, 32), (16, 72)])
@torch.no_grad()
def test_tokens_and_class_token_agree(peer, size, tmp_path):
    peer.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    ours = opened(load_file(tmp_path / "model.safetensors"), config, "transformers")
    assert ours.config.image_size == (24, 40)
    assert_equal_outputs(ours, peer, size)


@torch.no_grad()
def test_names_in_memory(peer):
    ours = opened(peer.state_dict(), peer.config.to_dict(), "transformers-5")
    assert_equal_outputs(ours, peer, (24, 40))


@torch.no_grad()
def test_there_and_back_is_bit_equal(peer, tmp_path):
    peer.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    ours = opened(tensors, peer.config.to_dict(), "transformers")
    back = to_theirs(ours.state_dict(), LAYOUTS["transformers"], ours.config)
    assert {name for name in tensors.keys() - back.keys() if tensors[name].numel()} == {"embeddings.mask_token"}
    assert all(torch.equal(tensors[name], tensor) for name, tensor in back.items())


@torch.no_grad()
def test_what_we_write_transformers_loads(peer, tmp_path):
    ours = opened(peer.state_dict(), peer.config.to_dict(), "transformers-5")
    save_file(
        to_theirs(ours.state_dict(), LAYOUTS["transformers"], ours.config),
        tmp_path / "model.safetensors",
        metadata={"format": "pt"},
    )
    (tmp_path / "config.json").write_text(json.dumps(LAYOUTS["transformers"].write(ours.config)))
    theirs = AutoModel.from_pretrained(tmp_path).eval()
    assert isinstance(theirs, DINOv3ViTModel)
    assert_equal_outputs(ours, theirs, (16, 48))
