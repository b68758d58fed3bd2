"""DINOv3: published parameter counts, its gated MLP and its biases by hand, and other libraries' configs."""

from dataclasses import asdict, replace

import pytest
import torch
import torch.nn.functional as F

from vitrail import models
from vitrail.errors import CheckpointError, SettingError
from vitrail.models.dinov3.dinov3 import SIZES, Config, DINOv3, SwiGLU
from vitrail.models.dinov3.keys import LAYOUTS, TIMM_SIZES, read_timm, read_transformers, write_timm, write_transformers
from vitrail.models.layout import Described
from vitrail.weights.rename import to_ours, to_theirs

# With a linear classifier of 1,000 classes: timm's vit_…_patch16_dinov3_qkvb and vit_7b_patch16_dinov3.
WITH_1000_CLASSES = {
    "dinov3-s16": 21_981_160,
    "dinov3-s16plus": 29_077_480,
    "dinov3-b16": 86_428_648,
    "dinov3-l16": 304_153_576,
    "dinov3-h16plus": 841_872_360,
    "dinov3-7b16": 6_720_127_976,
}
MODEL_CARD = {  # the authors' MODEL_CARD.md, millions without a classifier, the large ones to about two digits
    "dinov3-s16": (21, 1),
    "dinov3-s16plus": (29, 1),
    "dinov3-b16": (86, 1),
    "dinov3-l16": (300, 10),
    "dinov3-h16plus": (840, 10),
    "dinov3-7b16": (6716, 1),
}
TINY = Config(24, 2, 3, 40, patch_size=4, image_size=(20, 12))


def tiny(**changes):
    torch.manual_seed(0)
    model = DINOv3(replace(TINY, **changes)).eval()
    for parameter in model.parameters():
        parameter.data.add_(torch.randn_like(parameter) * 0.3)
    return model


@pytest.mark.parametrize("name", SIZES)
def test_parameters(name):
    with torch.device("meta"):
        model = models.create(name)
    parameters = sum(p.numel() for p in model.parameters())
    assert parameters + (model.width + 1) * 1000 == WITH_1000_CLASSES[name]
    millions, precision = MODEL_CARD[name]
    assert abs(parameters / 1e6 - millions) < precision


@torch.no_grad()
def test_a_gated_mlp_by_hand():
    torch.manual_seed(0)
    mlp, x = SwiGLU(6, 10), torch.randn(2, 3, 6)
    gate = x @ mlp.gate.weight.T + mlp.gate.bias
    up = x @ mlp.up.weight.T + mlp.up.bias
    expected = (gate / (1 + (-gate).exp()) * up) @ mlp.down.weight.T + mlp.down.bias
    torch.testing.assert_close(mlp(x), expected)


@torch.no_grad()
def test_queries_and_values_have_biases_and_keys_none():
    model = tiny()
    attention, x = model.blocks[0].attention, torch.randn(2, 5, 24)
    query_bias, value_bias = attention.qkv.qv_bias
    q, k, v = (part.transpose(1, 2).flatten(2) for part in attention.queries_keys_values(x))
    query, key, value = attention.qkv.weight.chunk(3)
    torch.testing.assert_close(q, F.linear(x, query, query_bias), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(k, F.linear(x, key), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(v, F.linear(x, value, value_bias), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_pooling():
    images = torch.randn(2, 3, 20, 12)
    by_class, by_mean = tiny()(images), tiny(pool="mean")(images)
    assert torch.equal(by_class.tokens, by_mean.tokens)
    assert by_class.prefix == 5
    assert torch.equal(by_class.pooled, by_class.tokens[:, 0])
    torch.testing.assert_close(by_mean.pooled, by_mean.maps[0].mean(dim=(2, 3)))


@torch.no_grad()
def test_any_image_will_do():
    images = torch.randn(2, 3, 8, 28)
    features = tiny()(images)
    assert features.grid == (2, 7)
    assert torch.equal(features.tokens, tiny(image_size=(8, 28))(images).tokens)


def test_weights_at_the_start():
    torch.manual_seed(0)
    model = DINOv3(Config(256, 1, 4, 512, gated=True, registers=40))
    for weight in (model.registers, model.blocks[0].attention.qkv.weight, model.blocks[0].mlp.gate.weight):
        assert weight.std().item() == pytest.approx(0.02, rel=0.03)
    assert not model.blocks[0].attention.qkv.qv_bias.any()
    assert not model.blocks[0].mlp.up.bias.any()
    assert (model.blocks[0].scale2.gamma == 1e-5).all()
    assert model.patch_embedding.proj.weight.abs().max().item() == pytest.approx(768**-0.5, rel=0.01)
    assert model.norm.eps == 1e-5


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"pool": "map"}, "DINOv3 has no pool 'map'; known are: class, mean"),
        ({"heads": 5}, "the width 24 is not divisible by 5 heads"),
        ({"heads": 4}, "a head width that is a multiple of 4, not 6"),
        ({"image_size": (21, 12)}, "not divisible by the patch size 4"),
    ],
)
def test_shapes_that_cannot_be(changes, words):
    with pytest.raises(SettingError, match=words):
        DINOv3(replace(TINY, **changes))


def read(described):
    return models.changed(described.model, **described.changes)


def test_timms_architectures():
    assert {name for name, _ in TIMM_SIZES.values()} == set(SIZES)
    for architecture, (name, bias) in TIMM_SIZES.items():
        described = read_timm({"architecture": architecture, "pretrained_cfg": {"input_size": [3, 256, 256]}})
        assert described.model == name
        expected = replace(SIZES[name], qv_bias=bias, pool="mean", image_size=(256, 256))
        assert read(described) == expected
        assert write_timm(expected)["architecture"] == architecture


@pytest.mark.parametrize(("arguments", "mlp"), [({}, 96), ({"mlp_ratio": 3}, 72), ({"mlp_ratio": 2.9}, 72)])
def test_timms_gated_mlps_are_a_multiple_of_8_wide(arguments, mlp):
    config = {"architecture": "vit_small_plus_patch16_dinov3", "model_args": {"embed_dim": 24, **arguments}}
    assert read(read_timm(config)).mlp == mlp


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("mlp", range(1, 60, 3))
def test_a_config_written_is_the_config_read(mlp, gated):
    config = Config(28, 3, 7, mlp, gated, image_size=(32, 48), patch_size=8, channels=2, registers=3)
    for pool, qv_bias in (("class", True), ("mean", False)):
        changed = replace(config, pool=pool, qv_bias=qv_bias)
        assert read(read_timm(write_timm(changed))) == changed
    for qv_bias in (True, False):
        changed = replace(config, qv_bias=qv_bias)
        assert read(read_transformers(write_transformers(changed))) == changed


def test_published_sizes_of_transformers_have_their_names():
    for name, size in SIZES.items():
        assert read_transformers(write_transformers(size)) == Described(name, {})


def test_what_transformers_does_not_have():
    with pytest.raises(SettingError, match="pooled by its class token, this one by the mean; export it to timm"):
        write_transformers(replace(TINY, pool="mean"))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"layer_norm_eps": 1e-6}, "has the layer_norm_eps 1e-06; ours has always 1e-05"),
        ({"key_bias": True}, "has the key_bias True; ours has always False"),
        ({"rope_theta": 10_000.0}, "has the rope_theta 10000.0; ours has always 100.0"),
        ({"hidden_act": "relu"}, "has the hidden_act relu; ours has always gelu"),
        ({"query_bias": False}, "biases on queries or on values alone"),
    ],
)
def test_what_ours_does_not_have_of_transformers(changes, words):
    with pytest.raises(CheckpointError, match=words):
        read_transformers({"model_type": "dinov3_vit", **changes})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model_args": {"rope_temperature": 10_000.0}}, "was made with rope_temperature"),
        ({"global_pool": "map"}, "is pooled by 'map', ours by: token, avg"),
    ],
)
def test_what_ours_does_not_have_of_timm(changes, words):
    with pytest.raises(CheckpointError, match=words):
        read_timm({"architecture": "vit_small_patch16_dinov3", **changes})


def test_other_architectures_are_not_ours():
    assert read_timm({"architecture": "vit_small_patch16_224"}) is None
    assert read_transformers({"model_type": "dinov2"}) is None


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("changes", [{}, {"gated": True, "registers": 0}, {"qv_bias": False}])
def test_there_and_back(layout, changes):
    model = tiny(**changes)
    ours = {**model.state_dict(), "head.linear.weight": torch.randn(5, 24), "head.linear.bias": torch.randn(5)}
    theirs = to_theirs(ours, LAYOUTS[layout], model.config)
    back, difference = to_ours(theirs, ours, LAYOUTS[layout], model.config)
    assert not difference
    assert all(torch.equal(back[name], tensor) for name, tensor in ours.items())


def test_the_authors_key_biases_are_left_out():
    """Their code multiplies them by a mask of zeros; what stands in the file does not matter."""
    model = tiny()
    theirs = to_theirs(model.state_dict(), LAYOUTS["paper"], model.config)
    bias = theirs["blocks.1.attn.qkv.bias"]
    assert not bias[24:48].any()
    bias[24:48] = float("nan")
    theirs["blocks.1.attn.qkv.bias_mask"] = torch.ones(72)
    back, difference = to_ours(theirs, model.state_dict(), LAYOUTS["paper"], model.config)
    assert not difference
    assert torch.equal(back["blocks.1.attention.qkv.qv_bias"], model.blocks[1].attention.qkv.qv_bias)


def test_a_config_of_no_published_size_has_the_familys_name():
    described = read_transformers({"model_type": "dinov3_vit", "hidden_size": 24, "num_attention_heads": 3})
    assert described.model == "dinov3"
    assert described.changes.keys() == asdict(TINY).keys()
