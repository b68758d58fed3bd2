"""ViT with random weights: against Transformers' through the key tables, its block against PyTorch's encoder layer."""

import json

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import (
    Dinov2Config,
    Dinov2ForImageClassification,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersForImageClassification,
    ViTConfig,
    ViTForImageClassification,
    ViTMAEConfig,
    ViTMAEForPreTraining,
    ViTModel,
)

from vitrail import models
from vitrail.heads.linear import LinearHead
from vitrail.models.vit import LAYOUTS, Block, Config, ViT
from vitrail.weights.rename import to_ours, to_theirs

SHAPE = {"hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4, "patch_size": 8}
MLP = {"intermediate_size": 80}
DINOV2 = {"mlp_ratio": 2, "layerscale_value": 0.3}
SMALL_DECODER = {"decoder_hidden_size": 16, "decoder_num_hidden_layers": 1, "decoder_num_attention_heads": 2}
CLASSIFIERS = {
    "transformers": (ViTForImageClassification, ViTConfig, MLP),
    "transformers-dinov2": (Dinov2ForImageClassification, Dinov2Config, DINOV2),
    "transformers-dinov2-registers": (
        *(Dinov2WithRegistersForImageClassification, Dinov2WithRegistersConfig),
        {**DINOV2, "num_register_tokens": 3},
    ),
}

PARTS = ("backbone.", "head.")


def randomise(module):
    """Values for every parameter that none of them starts with."""
    for parameter in module.parameters():
        parameter.data.copy_(parameter + torch.randn_like(parameter) * 0.1)
    return module.eval()


def peer_of(layout, size, **other):
    cls, config, settings = CLASSIFIERS[layout]
    torch.manual_seed(0)
    return randomise(cls(config(**SHAPE, **settings, **other, image_size=size, num_labels=5)))


def stated(peer):
    """The config as a file would have it."""
    return {**peer.config.to_dict(), "architectures": [type(peer).__name__]}


def opened(tensors, layout, config, classes=None):
    """Backbone and head as the key table fills them, both checked to be all that there is."""
    described = LAYOUTS[layout].read(config)
    ours = models.changed(described.model, **described.changes)
    backbone = ViT(ours).eval()
    head = LinearHead(backbone.width, classes) if classes else None
    wanted = {f"backbone.{name}": x for name, x in backbone.state_dict().items()}
    wanted |= {f"head.{name}": x for name, x in head.state_dict().items()} if head else {}
    renamed, difference = to_ours(tensors, wanted, LAYOUTS[layout], ours)
    assert not difference, str(difference)
    parts = {part: {k.removeprefix(part): x for k, x in renamed.items() if k.startswith(part)} for part in PARTS}
    backbone.load_state_dict(parts["backbone."])
    if head:
        head.load_state_dict(parts["head."])
    return backbone, head, renamed


@pytest.mark.parametrize("layout", CLASSIFIERS)
@pytest.mark.parametrize("settings", [{}, {"hidden_act": "gelu_pytorch_tanh", "qkv_bias": False, "num_channels": 1}])
@torch.no_grad()
def test_files_give_the_same_logits_and_go_back_out(layout, settings, tmp_path):
    peer = peer_of(layout, 32, **settings)
    peer.save_pretrained(tmp_path)
    config, file = json.loads((tmp_path / "config.json").read_text()), load_file(tmp_path / "model.safetensors")
    backbone, head, ours = opened(file, layout, config, classes=5)
    images = torch.randn(2, settings.get("num_channels", 3), 32, 32)
    torch.testing.assert_close(head(backbone(images)), peer(images).logits, atol=1e-5, rtol=1e-5)

    back = to_theirs(ours, LAYOUTS[layout], backbone.config)
    assert all(torch.equal(x, file[name]) for name, x in back.items())
    assert file.keys() - back.keys() <= {name for name in file if name.endswith("mask_token")}
    written = LAYOUTS[layout].write(backbone.config)
    assert written.items() <= {**config, "use_mask_token": False}.items()
    described = LAYOUTS[layout].read(written)
    assert models.changed(described.model, **described.changes) == backbone.config


@pytest.mark.parametrize("layout", CLASSIFIERS)
@torch.no_grad()
def test_the_names_of_version_5_in_memory(layout):
    peer = peer_of(layout, 32)
    layout = layout.replace("transformers", "transformers-5")
    backbone, head, ours = opened(peer.state_dict(), layout, stated(peer), classes=5)
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(head(backbone(images)), peer(images).logits, atol=1e-5, rtol=1e-5)
    back = to_theirs(ours, LAYOUTS[layout], backbone.config)
    assert all(torch.equal(x, peer.state_dict()[name]) for name, x in back.items())


@pytest.mark.parametrize("size", [(32, 32), (48, 24)])
@torch.no_grad()
def test_tokens_agree_and_the_pooler_is_no_part_of_the_backbone(size, tmp_path):
    torch.manual_seed(0)
    peer = randomise(ViTModel(ViTConfig(**SHAPE, **MLP, image_size=size)))
    peer.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    backbone, _, _ = opened(load_file(tmp_path / "model.safetensors"), "transformers", config)
    images = torch.randn(2, 3, *size)
    expected = peer(images).last_hidden_state
    features = backbone(images)
    torch.testing.assert_close(features.tokens, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(features.pooled, expected[:, 0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("in_memory", [False, True])
@torch.no_grad()
def test_the_encoder_of_a_masked_autoencoder(in_memory, tmp_path):
    torch.manual_seed(0)
    config = ViTMAEConfig(**SHAPE, **MLP, **SMALL_DECODER, image_size=32, mask_ratio=0.0)
    peer = randomise(ViTMAEForPreTraining(config))
    peer.save_pretrained(tmp_path)
    tensors = peer.state_dict() if in_memory else load_file(tmp_path / "model.safetensors")
    backbone, _, _ = opened(tensors, "transformers-5" if in_memory else "transformers", stated(peer))
    images, in_order = torch.randn(2, 3, 32, 32), torch.arange(16.0).expand(2, -1)
    expected = peer.vit(images, noise=in_order).last_hidden_state  # no patch is hidden, and none moves
    torch.testing.assert_close(backbone(images).tokens, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("layout", CLASSIFIERS)
@pytest.mark.parametrize("size", [(48, 48), (64, 40), (16, 24)])
@torch.no_grad()
def test_other_image_sizes(layout, size):
    peer = peer_of(layout, 32)
    five = layout.replace("transformers", "transformers-5")
    backbone, head, _ = opened(peer.state_dict(), five, stated(peer), classes=5)
    before = backbone.config
    other = models.create("vit", **{**vars(before), "image_size": size}).eval()
    other.load_state_dict(other.adapted(backbone.state_dict(), before, LAYOUTS[layout].resampling))
    images = torch.randn(2, 3, *size)
    resized = {"interpolate_pos_encoding": True} if layout == "transformers" else {}  # DINOv2 does it unasked
    torch.testing.assert_close(head(other(images)), peer(images, **resized).logits, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_block_is_pytorchs_pre_norm_encoder_layer():
    torch.manual_seed(0)
    ours = randomise(Block(Config(width=48, depth=1, heads=4, mlp=80), drop_path=0.0))
    theirs = nn.TransformerEncoderLayer(
        *(48, 4, 80), dropout=0.0, activation="gelu", layer_norm_eps=1e-6, batch_first=True, norm_first=True
    ).eval()
    names = {
        "norm1.": "norm1.",
        "attention.qkv.": "self_attn.in_proj_",
        "attention.proj.": "self_attn.out_proj.",
        "norm2.": "norm2.",
        "mlp.fc1.": "linear1.",
        "mlp.fc2.": "linear2.",
    }
    state = ours.state_dict()
    theirs.load_state_dict({their + x: state[our + x] for our, their in names.items() for x in ("weight", "bias")})
    x = torch.randn(2, 17, 48)
    torch.testing.assert_close(ours(x), theirs(x), atol=1e-5, rtol=1e-5)
