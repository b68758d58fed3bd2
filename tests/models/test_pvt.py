import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from vitrail.errors import CheckpointError, SettingError
from vitrail.heads.linear import LinearHead
from vitrail.models import changed
from vitrail.models.pvt import LAYOUTS, PVT, SIZES, Config

# In millions, with a classifier of 1,000 classes: the table of the authors' classification/README.md.
PUBLISHED = {"pvt-tiny": 13.2, "pvt-small": 24.5, "pvt-medium": 44.2, "pvt-large": 61.4}
TINY = Config((1, 1, 2, 1), (4, 6, 8, 12), (1, 2, 4, 3), image_size=(64, 96))


def randomised(model):
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return model.eval()


def test_every_size_has_a_published_count():
    assert PUBLISHED.keys() == SIZES.keys()


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_parameter_counts(name):
    with torch.device("meta"):
        model = PVT(SIZES[name])
        head = LinearHead(model.width, 1000)
    count = sum(p.numel() for p in (*model.parameters(), *head.parameters()))
    assert round(count / 1e6, 1) == PUBLISHED[name]


def test_every_head_of_a_published_size_has_64_channels():
    for config in SIZES.values():
        assert [width / heads for width, heads in zip(config.widths, config.heads, strict=True)] == [64] * 4


def test_norms_behind_convolutions_have_an_epsilon_of_their_own():
    norms = {name: m.eps for name, m in PVT(TINY).named_modules() if isinstance(m, nn.LayerNorm)}
    behind = {name: eps for name, eps in norms.items() if "embedding" in name or "reduction" in name}
    assert set(behind.values()) == {1e-5}
    assert {eps for name, eps in norms.items() if name not in behind} == {1e-6}
    assert len(behind) == 4 + 4  # four embeddings; the last stage's one block has no reduction


@pytest.mark.parametrize(("size", "resolutions"), [((64, 96), (16, 24)), ((75, 50), (18, 12)), ((255, 38), (63, 9))])
@torch.no_grad()
def test_resolution_of_the_maps(size, resolutions):
    features = PVT(replace(TINY, image_size=size, reductions=(8, 4, 1, 1)))(torch.randn(1, 3, *size))
    expected = [(resolutions[0] // 2**stage, resolutions[1] // 2**stage) for stage in range(4)]
    assert [tuple(map_.shape[2:]) for map_ in features.maps] == expected
    assert [map_.shape[1] for map_ in features.maps] == list(TINY.widths)


@torch.no_grad()
def test_pooled_is_the_class_token():
    features = randomised(PVT(TINY))(torch.randn(2, 3, 64, 96))
    assert features.prefix == 1
    assert features.grid == (2, 3)
    assert features.tokens.shape == (2, 1 + 6, 12)
    assert torch.equal(features.pooled, features.tokens[:, 0])


@torch.no_grad()
def test_what_does_not_fill_a_patch_is_cut():
    model = randomised(PVT(replace(TINY, image_size=(75, 66))))
    images = torch.randn(1, 3, 75, 66)
    other = images.clone()
    other[:, :, 72:], other[:, :, :, 64:] = 1e3, 1e3
    assert torch.equal(model(images).pooled, model(other).pooled)
    other[:, :, 71] = 1e3
    assert not torch.equal(model(images).maps[0], model(other).maps[0])


def bilinear(grid, size):
    """``(h, w, D)`` at ``size``, point by point: values at the centres of pixels, the edges of both on each other."""

    def sources(old, new, index):
        place = min(max((index + 0.5) * old / new - 0.5, 0), old - 1)
        low = math.floor(place)
        return (low, 1 - (place - low)), (min(low + 1, old - 1), place - low)

    result = torch.zeros(*size, grid.shape[2])
    for row in range(size[0]):
        for column in range(size[1]):
            for y, up in sources(grid.shape[0], size[0], row):
                for x, left in sources(grid.shape[1], size[1], column):
                    result[row, column] += up * left * grid[y, x]
    return result


@pytest.mark.parametrize("layout", LAYOUTS)
@torch.no_grad()
def test_positions_at_another_image_size(layout):
    before = replace(TINY, image_size=(64, 64))
    model, other = randomised(PVT(before)), PVT(TINY).eval()
    weights = other.adapted(model.state_dict(), before, LAYOUTS[layout].resampling)
    other.load_state_dict(weights)
    for stage, (old, new) in enumerate([((16, 16), (16, 24)), ((8, 8), (8, 12)), ((4, 4), (4, 6)), ((2, 2), (2, 3))]):
        prefix = 1 if stage == 3 else 0
        name = f"stages.{stage}.positions"
        given, resampled = model.state_dict()[name][0], weights[name][0]
        expected = bilinear(given[prefix:].unflatten(0, old), new).flatten(0, 1)
        torch.testing.assert_close(resampled[prefix:], expected, atol=1e-6, rtol=1e-6)
        assert torch.equal(resampled[:prefix], given[:prefix])
    assert other(torch.randn(1, 3, 64, 96)).grid == (2, 3)


def test_images_of_another_size_than_the_positions():
    sentence = (
        "this model's learned positions are for maps of 16x24, the image gives 16x16; give images of 64x96 pixels."
    )
    with pytest.raises(SettingError, match=f"^{sentence}$"):
        PVT(TINY)(torch.zeros(1, 3, 64, 64))


def test_initial_values():
    torch.manual_seed(0)
    model = PVT(SIZES["pvt-tiny"])
    for values in (model.stages[2].positions, model.stages[3].blocks[0].mlp.fc1.weight):
        assert values.std().item() == pytest.approx(0.02, rel=0.02)
    assert model.stages[3].class_token.abs().max() > 0
    assert not any(m.bias.any() for m in model.modules() if isinstance(m, nn.Linear))


def test_layers_count_through_the_stages():
    model = PVT(TINY)
    assert model.depth == 6
    assert model.layer("stages.0.positions") == 0
    assert model.layer("stages.0.blocks.0.norm1.weight") == 1
    assert model.layer("stages.2.embedding.conv.weight") == model.layer("stages.2.blocks.0.mlp.fc1.bias") == 3
    assert model.layer("stages.3.class_token") == model.layer("stages.3.blocks.0.attention.q.weight") == 5
    assert model.layer("norm.weight") == 6


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"heads": (1, 2)}, "depths, widths, heads, mlp_ratios and reductions need one value for each stage."),
        ({"reductions": (8, 4, 2, 2)}, "the last stage has a class token, which is on no map to be reduced; give 1"),
        ({"image_size": (64, 31)}, "images of 64x31 pixels are too small for this PVT; give at least 32x32."),
        ({"heads": (3, 2, 4, 3)}, "the width 4 is not divisible by 3 heads."),
    ],
)
def test_shapes_that_cannot_be(changes, sentence):
    with pytest.raises(SettingError, match=f"^{sentence}"):
        PVT(replace(TINY, **changes))


@pytest.mark.parametrize("size", [*SIZES.values(), replace(TINY, image_size=(64, 64), channels=1, qkv_bias=False)])
def test_a_config_goes_to_transformers_and_back(size):
    config = replace(size, conv_norm_eps=size.norm_eps)
    described = LAYOUTS["transformers"].read(LAYOUTS["transformers"].write(config))
    assert changed(described.model, **described.changes) == config
    published = [name for name, known in SIZES.items() if known == size]
    assert described.model == (published[0] if published else "pvt")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"image_size": (64, 96), "conv_norm_eps": 1e-6},
            "Transformers' PVT is for square images, this one for 64x96.",
        ),
        ({"image_size": (64, 64)}, "Transformers' PVT has one epsilon for all its norms, this one has 1e-06 in its"),
    ],
)
def test_what_transformers_cannot_express(changes, sentence):
    with pytest.raises(SettingError, match=f"^{sentence}"):
        LAYOUTS["transformers"].write(replace(TINY, **changes))


@pytest.mark.parametrize("config", [{"strides": [4, 2, 2, 1]}, {"patch_sizes": [7, 3, 3, 3]}, {"hidden_act": "relu"}])
def test_a_pvt_of_transformers_that_ours_is_not(config):
    with pytest.raises(CheckpointError, match=r"^our PVT has "):
        LAYOUTS["transformers"].read({"model_type": "pvt", **config})


def test_other_models_are_not_described():
    assert LAYOUTS["transformers"].read({"model_type": "pvt_v2"}) is None
