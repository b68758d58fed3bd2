"""What published weights ask of a ViT beyond the paper's plain one, each setting against its definition."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from vitrail.errors import SettingError
from vitrail.models.vit import Config, ViT
from vitrail.models.vit.hybrid import Bottleneck, ResNetStem
from vitrail.nn.mlp import ACTIVATIONS

PLAIN = Config(24, 2, 3, 48, image_size=(32, 48))


def build(**changes):
    """A ViT with no parameter at a special value such as 0."""
    torch.manual_seed(0)
    model = ViT(replace(PLAIN, **changes)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def images(count=2, channels=3):
    torch.manual_seed(1)
    return torch.randn(count, channels, *PLAIN.image_size)


@torch.no_grad()
def test_a_class_position_only_adds_to_the_class_token():
    own, none = build(), build(class_position=False)
    state = own.state_dict()
    first, patches = state["positions"].split([1, 6], dim=1)
    none.load_state_dict({**state, "positions": patches, "class_token": state["class_token"] + first})
    assert torch.equal(own(images()).tokens, none(images()).tokens)


@torch.no_grad()
def test_registers_have_no_positions_and_stand_between_class_token_and_patches():
    model = build(registers=2)
    tokens, grid = model.embed(images())
    assert grid == (2, 3)
    assert torch.equal(tokens[:, 1:3], model.registers.expand(2, -1, -1))
    torch.testing.assert_close(tokens[:, 0], (model.class_token + model.positions[:, :1])[:, 0].expand(2, -1))
    patches = model.patch_embedding(images()).flatten(2).transpose(1, 2)
    torch.testing.assert_close(tokens[:, 3:], patches + model.positions[:, 1:])


@torch.no_grad()
def test_class_token_and_mean_are_pooled_in_a_row():
    model = build(pool="class-mean", registers=2)
    features = model(images())
    assert model.width == features.pooled.shape[1] == 48
    expected = torch.cat([features.tokens[:, 0], features.tokens[:, 3:].mean(dim=1)], dim=1)
    assert torch.equal(features.pooled, expected)


@torch.no_grad()
def test_the_norm_is_on_the_tokens_or_on_the_mean_of_the_patches_alone():
    model = build(pool="mean", class_token=True, norm="pooled")
    features = model(images())
    assert features.prefix == 1
    expected = F.layer_norm(features.tokens[:, 1:].mean(dim=1), (24,), model.norm.weight, model.norm.bias, 1e-6)
    torch.testing.assert_close(features.pooled, expected)

    before = build(pool="mean", class_token=True)
    before.load_state_dict(model.state_dict())
    tokens = F.layer_norm(features.tokens, (24,), model.norm.weight, model.norm.bias, 1e-6)
    torch.testing.assert_close(before(images()).tokens, tokens)
    torch.testing.assert_close(before(images()).pooled, tokens[:, 1:].mean(dim=1))


@torch.no_grad()
def test_a_norm_of_two_pooled_vectors_is_as_wide_as_both():
    model = build(pool="class-mean", norm="pooled")
    assert model.norm.weight.shape == model(images()).pooled.shape[1:] == (48,)


@torch.no_grad()
def test_attention_pooling_looks_at_the_patches_alone():
    model = build(pool="map", registers=2)
    features = model(images())
    torch.testing.assert_close(features.pooled, model.attention_pool(features.tokens[:, 2:]))


@torch.no_grad()
def test_the_representation_is_a_tanh_layer_on_what_is_pooled():
    plain, model = build(), build(representation=10)
    assert model.width == 10
    assert model.layer("representation.weight") == model.depth
    plain.load_state_dict({k: v for k, v in model.state_dict().items() if not k.startswith("representation")})
    weight, bias = model.representation.weight, model.representation.bias
    expected = (plain(images()).pooled @ weight.T + bias).tanh()
    torch.testing.assert_close(model(images()).pooled, expected)


def test_activations_are_those_of_their_formulas():
    x = torch.linspace(-4, 4, 101, dtype=torch.float64)
    formulas = {
        "gelu": x * 0.5 * (1 + torch.erf(x / math.sqrt(2))),
        "gelu_tanh": 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
        "quick_gelu": x / (1 + torch.exp(-1.702 * x)),
        "relu": x.clamp(min=0),
    }
    assert ACTIVATIONS.keys() == formulas.keys()
    for name, expected in formulas.items():
        torch.testing.assert_close(ACTIVATIONS[name]()(x), expected)
        assert type(build(activation=name).blocks[0].mlp.act) is type(ACTIVATIONS[name]())


@torch.no_grad()
def test_heads_of_their_own_width():
    model = build(head_width=10)
    attention = model.blocks[0].attention
    assert attention.qkv.weight.shape == (90, 24)
    assert attention.proj.weight.shape == (24, 30)
    x = torch.randn(2, 5, 24)
    q, k, v = (part.reshape(2, 5, 3, 10) for part in attention.qkv(x).split(30, dim=-1))
    scores = torch.einsum("bihd,bjhd->bhij", q, k) / math.sqrt(10)
    expected = attention.proj(torch.einsum("bhij,bjhd->bihd", scores.softmax(dim=-1), v).reshape(2, 5, 30))
    torch.testing.assert_close(attention(x), expected, atol=1e-5, rtol=1e-5)


def test_a_width_that_the_heads_do_not_divide_needs_a_head_width():
    with pytest.raises(SettingError, match="the width 24 is not divisible by 5 heads"):
        build(heads=5)
    build(heads=5, head_width=4)


@pytest.mark.parametrize(
    ("stages", "patch_size", "side", "inputs"),
    [((), 16, 4, 64), ((), 4, 1, 64), ((1,), 8, 2, 256), ((1, 1), 16, 2, 512), ((2, 1, 1), 16, 1, 1024)],
)
@torch.no_grad()
def test_a_hybrids_patches_are_cut_from_the_map_that_the_stages_leave(stages, patch_size, side, inputs):
    stem = ResNetStem(3, 24, patch_size, stages)
    assert stem.proj.weight.shape == (24, inputs, side, side)
    assert stem(torch.randn(1, 3, 32, 48)).shape == (1, 24, 32 // patch_size, 48 // patch_size)


def test_a_hybrids_patch_size_is_a_multiple_of_what_the_stages_reduce_by():
    with pytest.raises(SettingError, match=r"stages \(3, 4, 6, 3\) needs a patch size of 32 or its multiples"):
        ResNetStem(3, 24, 16, (3, 4, 6, 3))


@torch.no_grad()
def test_a_hybrids_root_pads_as_tensorflow_does():
    """SAME: 7x7 at stride 2 on 16 pixels lacks 5, 2 of them before; 3x3 at stride 2 on 8 lacks 1, after."""
    torch.manual_seed(0)
    stem = ResNetStem(1, 24, 4, ())
    image = torch.randn(1, 1, 16, 16)
    weight = stem.root.conv.weight
    deviation = weight.flatten(1).std(dim=1, correction=0).view(-1, 1, 1, 1)
    standardised = (weight - weight.flatten(1).mean(dim=1).view(-1, 1, 1, 1)) / deviation
    x = torch.zeros(1, 64, 8, 8)
    padded = F.pad(image, (2, 3, 2, 3))
    for row in range(8):
        for column in range(8):
            window = padded[:, :, 2 * row : 2 * row + 7, 2 * column : 2 * column + 7]
            x[..., row, column] = (window * standardised).sum(dim=(1, 2, 3))
    groups = x.reshape(1, 32, -1)
    variance = groups.var(dim=-1, keepdim=True, correction=0)
    x = ((groups - groups.mean(dim=-1, keepdim=True)) / (variance + 1e-6).sqrt()).reshape(1, 64, 8, 8).relu()
    pooled = torch.empty(1, 64, 4, 4)
    for row in range(4):
        for column in range(4):
            pooled[..., row, column] = x[..., 2 * row : 2 * row + 3, 2 * column : 2 * column + 3].amax(dim=(2, 3))
    torch.testing.assert_close(stem(image), stem.proj(pooled), atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_a_bottleneck_begins_as_its_input():
    x = torch.randn(2, 256, 6, 6).relu()
    torch.testing.assert_close(Bottleneck(256, 64, 1)(x), x)


@torch.no_grad()
def test_another_patch_size_of_a_hybrid_resamples_the_patches_on_the_map():
    small, large = build(stem="resnet", patch_size=8), build(stem="resnet", patch_size=16)
    adapted = large.adapted(small.state_dict(), small.config, "bicubic")
    assert adapted["patch_embedding.proj.weight"].shape == (24, 64, 4, 4)
    assert adapted["positions"].shape == (1, 7, 24)
    large.load_state_dict(adapted)


def test_a_convolutional_stem_keeps_its_patch_size():
    small, large = build(stem="conv", patch_size=4), build(stem="conv", patch_size=8)
    with pytest.raises(SettingError, match="a convolutional stem keeps its patch size, which is 4"):
        large.adapted(small.state_dict(), small.config, "bicubic")


@pytest.mark.parametrize("stem", ["patch", "resnet", "conv"])
@torch.no_grad()
def test_grey_images_are_read_by_the_sum_of_the_kernels_that_read_the_colours(stem):
    model, grey = build(stem=stem, patch_size=8), build(stem=stem, patch_size=8, channels=1)
    before = model.state_dict()
    after = grey.adapted(before, model.config, "bicubic")
    assert {name for name in before if before[name].shape != after[name].shape} == {model.input_kernel}
    torch.testing.assert_close(after[model.input_kernel], before[model.input_kernel].sum(dim=1, keepdim=True))
    grey.load_state_dict(after)


@torch.no_grad()
def test_a_larger_patch_gives_the_tokens_that_the_small_one_gave():
    model = build(patch_size=8)
    other = build(patch_size=16, image_size=(64, 96))
    other.load_state_dict(other.adapted(model.state_dict(), model.config, "bicubic"))
    patches = images().unfold(2, 8, 8).unfold(3, 8, 8)  # (B, C, rows, columns, 8, 8)
    large = F.interpolate(patches.reshape(-1, 1, 8, 8), (16, 16), mode="bicubic", antialias=True)
    large = large.reshape(2, 3, 4, 6, 16, 16).permute(0, 1, 2, 4, 3, 5).reshape(2, 3, 64, 96)
    torch.testing.assert_close(other.embed(large)[0], model.embed(images())[0], atol=1e-4, rtol=1e-4)
