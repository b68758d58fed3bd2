"""ViT against Transformers' ViTModel, and its block against PyTorch's own encoder layer, with random weights."""

import pytest
import torch
from torch import nn
from transformers import ViTConfig, ViTModel

from vitrail.models.vit.vit import Block, Config, ViT

# Transformers' names inside layer {} (version 5), and ours inside block {}.
IN_A_BLOCK = {
    "layernorm_before": "norm1",
    "attention.o_proj": "attention.proj",
    "layernorm_after": "norm2",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}
AROUND = {"embeddings.patch_embeddings.projection": "patch_embedding.proj", "layernorm": "norm"}


def randomise(module):
    """Values for every parameter that none of them starts with."""
    for parameter in module.parameters():
        parameter.data.copy_(parameter + torch.randn_like(parameter) * 0.1)


def our_state(theirs, depth):
    pairs = dict(AROUND)
    for i in range(depth):
        pairs |= {f"layers.{i}.{name}": f"blocks.{i}.{ours}" for name, ours in IN_A_BLOCK.items()}
    state = {f"{ours}.{x}": theirs[f"{name}.{x}"] for name, ours in pairs.items() for x in ("weight", "bias")}
    for i in range(depth):
        for x in ("weight", "bias"):
            parts = [theirs[f"layers.{i}.attention.{part}_proj.{x}"] for part in "qkv"]
            state[f"blocks.{i}.attention.qkv.{x}"] = torch.cat(parts)
    return state | {
        "class_token": theirs["embeddings.cls_token"],
        "positions": theirs["embeddings.position_embeddings"],
    }


@pytest.mark.parametrize("size", [(32, 32), (48, 24)])
@torch.no_grad()
def test_tokens_and_class_token_agree(size):
    torch.manual_seed(0)
    shape = {"hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 80}
    other = {"image_size": size, "patch_size": 8, "hidden_act": "gelu", "layer_norm_eps": 1e-6}
    theirs = ViTModel(ViTConfig(**shape, **other), add_pooling_layer=False).eval()
    randomise(theirs)
    ours = ViT(Config(width=48, depth=3, heads=4, mlp=80, image_size=size, patch_size=8)).eval()
    ours.load_state_dict(our_state(theirs.state_dict(), depth=3))

    images = torch.randn(2, 3, *size)
    expected = theirs(images).last_hidden_state
    features = ours(images)
    torch.testing.assert_close(features.tokens, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(features.pooled, expected[:, 0], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_block_is_pytorchs_pre_norm_encoder_layer():
    torch.manual_seed(0)
    ours = Block(Config(width=48, depth=1, heads=4, mlp=80), drop_path=0.0).eval()
    randomise(ours)
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
