import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from vitrail.errors import CheckpointError, SettingError
from vitrail.heads.linear import LinearHead
from vitrail.models import changed
from vitrail.models.pvt_v2 import LAYOUTS, SIZES, Config, PVTv2
from vitrail.models.pvt_v2.pvt_v2 import ConvMlp, PooledTokens

# In millions, with a classifier of 1,000 classes: the column param_count of timm's results/results-imagenet.csv. The
# authors' README has the same to one digit, with 22.6 for b2-li.
PUBLISHED = {
    "pvt-v2-b0": 3.67,
    "pvt-v2-b1": 14.01,
    "pvt-v2-b2": 25.36,
    "pvt-v2-b2-li": 22.55,
    "pvt-v2-b3": 45.24,
    "pvt-v2-b4": 62.56,
    "pvt-v2-b5": 81.96,
}
TINY = Config((1, 1, 2, 1), (4, 6, 8, 12), (1, 2, 4, 3), image_size=(64, 96))


def randomised(module):
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return module.eval()


def test_every_size_has_a_published_count():
    assert PUBLISHED.keys() == SIZES.keys()


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_parameter_counts(name):
    with torch.device("meta"):
        model = PVTv2(SIZES[name])
        head = LinearHead(model.width, 1000)
    count = sum(p.numel() for p in (*model.parameters(), *head.parameters()))
    assert round(count / 1e6, 2) == PUBLISHED[name]


def test_norms_behind_convolutions_have_an_epsilon_of_their_own():
    for linear, reductions in ((False, 4), (True, 5)):  # only with linear attention the last stage has one, too
        norms = {n: m.eps for n, m in PVTv2(replace(TINY, linear=linear)).named_modules() if hasattr(m, "eps")}
        behind = {name: eps for name, eps in norms.items() if "embedding" in name or "reduction" in name}
        assert set(behind.values()) == {1e-5}
        assert {eps for name, eps in norms.items() if name not in behind} == {1e-6}
        assert len(behind) == 4 + reductions


@pytest.mark.parametrize("linear", [False, True])
@pytest.mark.parametrize("size", [(64, 96), (75, 50), (29, 33), (255, 38)])
@torch.no_grad()
def test_images_of_any_size(size, linear):
    features = PVTv2(replace(TINY, linear=linear))(torch.randn(1, 3, *size))
    expected = [tuple(math.ceil(side / 2 ** (stage + 2)) for side in size) for stage in range(4)]
    assert [tuple(map_.shape[2:]) for map_ in features.maps] == expected
    assert [map_.shape[1] for map_ in features.maps] == list(TINY.widths)
    torch.testing.assert_close(features.pooled, features.maps[-1].mean(dim=(2, 3)))


def test_images_that_are_too_small():
    with pytest.raises(SettingError, match=r"^a map of 7x8 places is too small for a reduction that needs 8x8; give"):
        PVTv2(TINY)(torch.zeros(1, 3, 28, 32))


@torch.no_grad()
def test_patches_overlap():
    """A token of the first stage sees 7x7 pixels: 3 to each side of the pixel in row 4r and column 4c."""
    embedding = PVTv2(TINY).stages[0].embedding
    image = torch.randn(1, 3, 64, 96)
    for changed_row, seen in ((16 - 3, True), (16 + 3, True), (16 - 4, False), (16 + 4, False)):
        other = image.clone()
        other[:, :, changed_row, 20 - 3 : 20 + 4] += 1
        place = (16 // 4) * 24 + 20 // 4
        assert torch.equal(embedding(image)[0][0, place], embedding(other)[0][0, place]) != seen


@pytest.mark.parametrize("size", [(7, 7), (14, 21), (10, 5), (8, 30)])
@torch.no_grad()
def test_linear_attention_has_49_keys_whatever_the_map(size):
    part = randomised(PooledTokens(4, eps=1e-5)).double()
    x = torch.randn(2, 4, *size, dtype=torch.float64)
    tokens, grid = part(x)
    assert grid == (7, 7)
    for row in range(7):
        for column in range(7):
            top, bottom = row * size[0] // 7, math.ceil((row + 1) * size[0] / 7)
            left, right = column * size[1] // 7, math.ceil((column + 1) * size[1] / 7)
            y = x[:, :, top:bottom, left:right].mean(dim=(2, 3)) @ part.conv.weight.flatten(1).T + part.conv.bias
            y = part.norm(y)
            y = y * (1 + torch.erf(y / 2**0.5)) / 2
            torch.testing.assert_close(tokens[:, row * 7 + column], y)


@pytest.mark.parametrize("relu", [False, True])
@torch.no_grad()
def test_the_mlp_looks_at_the_eight_neighbours(relu):
    mlp = randomised(ConvMlp(3, 5, relu=relu)).double()
    x = torch.randn(1, 12, 3, dtype=torch.float64)
    hidden = mlp.fc1(x)[0].unflatten(0, (3, 4))
    hidden = hidden.clamp(min=0) if relu else hidden
    for row in range(3):
        for column in range(4):
            y = mlp.conv.bias.clone()
            for down in (-1, 0, 1):
                for right in (-1, 0, 1):
                    if 0 <= row + down < 3 and 0 <= column + right < 4:
                        y += mlp.conv.weight[:, 0, down + 1, right + 1] * hidden[row + down, column + right]
            y = mlp.fc2(y * (1 + torch.erf(y / 2**0.5)) / 2)
            torch.testing.assert_close(mlp(x, (3, 4))[0, row * 4 + column], y)


def test_linear_attention_comes_with_a_relu_in_the_mlp():
    for linear, kind in ((False, nn.Identity), (True, nn.ReLU)):
        model = PVTv2(replace(TINY, linear=linear))
        assert {type(block.mlp.relu) for stage in model.stages for block in stage.blocks} == {kind}


def test_initial_values():
    """Fan-outs: 64 outputs of a 7x7 kernel; 9 weights a channel of a depth-wise 3x3 kernel."""
    torch.manual_seed(0)
    model = PVTv2(SIZES["pvt-v2-b1"])
    block = model.stages[2].blocks[0]
    expected = [
        (model.stages[0].embedding.conv, math.sqrt(2 / (64 * 49))),
        (block.mlp.conv, math.sqrt(2 / 9)),
        (block.attention.reduction.conv, math.sqrt(2 / (320 * 4))),
        (block.attention.kv, 0.02),
    ]
    for layer, std in expected:
        assert layer.weight.std().item() == pytest.approx(std, rel=0.03)
        assert not layer.bias.any()


def test_layers_count_through_the_stages():
    model = PVTv2(TINY)
    assert model.depth == 5
    assert model.layer("stages.0.embedding.norm.bias") == 0
    assert model.layer("stages.0.norm.weight") == model.layer("stages.0.blocks.0.norm1.weight") == 1
    assert model.layer("stages.2.embedding.conv.weight") == model.layer("stages.2.blocks.0.mlp.fc1.bias") == 3
    assert model.layer("stages.2.norm.bias") == 4
    assert model.layer("stages.3.norm.bias") == 5


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"widths": (4, 6)}, "depths, widths, heads, mlp_ratios and reductions need one value for each stage."),
        ({"heads": (3, 2, 4, 3)}, "the width 4 is not divisible by 3 heads."),
    ],
)
def test_shapes_that_cannot_be(changes, sentence):
    with pytest.raises(SettingError, match=f"^{sentence}$"):
        PVTv2(replace(TINY, **changes))


@pytest.mark.parametrize("library", ["timm", "transformers"])
@pytest.mark.parametrize("size", [*SIZES.values(), replace(TINY, linear=True, channels=1, qkv_bias=False)])
def test_a_config_goes_out_and_back(library, size):
    config = replace(size, conv_norm_eps=size.norm_eps) if library == "transformers" else size
    described = LAYOUTS[library].read(LAYOUTS[library].write(config))
    assert changed(described.model, **described.changes) == config
    published = [name for name, known in SIZES.items() if known == size]
    assert described.model == (published[0] if published else "pvt-v2")


@pytest.mark.parametrize("name", SIZES)
def test_timm_names_of_the_published_sizes(name):
    described = LAYOUTS["timm"].read({"architecture": name.replace("-", "_")})
    assert changed(described.model, **described.changes) == SIZES[name]


def test_timm_takes_one_number_for_all_stages():
    arguments = {"depths": [1, 2, 3], "embed_dims": [8, 16, 24], "num_heads": 2, "mlp_ratios": 3.5, "sr_ratios": 1}
    described = LAYOUTS["timm"].read({"architecture": "pvt_v2_b0", "model_args": arguments})
    config = changed(described.model, **described.changes)
    assert config == Config((1, 2, 3), (8, 16, 24), (2, 2, 2), (3.5, 3.5, 3.5), (1, 1, 1))


def test_what_the_libraries_cannot_express():
    with pytest.raises(SettingError, match=r"^timm's PVT v2 has the epsilons 1e-06 in its blocks and 1e-05 behind"):
        LAYOUTS["timm"].write(replace(TINY, conv_norm_eps=1e-6))
    with pytest.raises(
        SettingError, match=r"^Transformers' PVT v2 has one epsilon for all its norms, this one has 1e-06"
    ):
        LAYOUTS["transformers"].write(TINY)


def test_what_of_other_libraries_ours_is_not():
    with pytest.raises(CheckpointError, match=r"^this PVT v2 was built with act_layer, which ours does not have"):
        LAYOUTS["timm"].read({"architecture": "pvt_v2_b0", "model_args": {"act_layer": "relu"}})
    for config in ({"strides": [4, 2, 2, 1]}, {"patch_sizes": [4, 2, 2, 2]}, {"hidden_act": "relu"}):
        with pytest.raises(CheckpointError, match=r"^our PVT v2 has "):
            LAYOUTS["transformers"].read({"model_type": "pvt_v2", **config})


def test_other_models_are_not_described():
    assert LAYOUTS["timm"].read({"architecture": "resnet18"}) is None
    assert LAYOUTS["transformers"].read({"model_type": "pvt"}) is None
