"""iGPT: what its tokens may know, its colours, its layers, and the published numbers of parameters."""

import math

import pytest
import torch

from vitrail import models
from vitrail.data.preprocess import Preprocess
from vitrail.errors import SettingError
from vitrail.models.igpt import IGPT, SIZES, Config
from vitrail.models.igpt.igpt import LUMA, Block, lattice, nearest
from vitrail.nn.mlp import ACTIVATIONS
from vitrail.recipes.adapt import adapt
from vitrail.tasks import Classification

SMALL = Config(width=16, depth=4, heads=2, mlp=32, image_size=(4, 3), colours=8)


def small(**changes):
    torch.manual_seed(0)
    model = models.create("igpt", **{**vars(SMALL), **changes}).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return model


def some_numbers(count=2, seed=1):
    return torch.randint(8, (count, 12), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("name", "published"), [("igpt-s", 76_682_240), ("igpt-m", 455_489_536), ("igpt-l", 1_362_914_304)]
)
def test_parameters_with_biases_and_output_as_transformers_counts_them(name, published):
    with torch.device("meta"):
        model = models.create(name, bias=True)
    output = SIZES[name].width * SIZES[name].colours
    assert sum(parameter.numel() for parameter in model.parameters()) + output == published


def test_the_papers_have_no_biases():
    assert not [name for name, _ in small().named_parameters() if name.endswith("bias")]
    assert [name for name, _ in small(bias=True).named_parameters() if name.endswith("bias")]


@torch.no_grad()
def test_a_token_knows_the_pixels_before_its_own_only():
    model, numbers = small(), some_numbers(1)
    before = model.encode(model.embed(numbers))
    for place in range(12):
        changed = numbers.clone()
        changed[0, place] = (changed[0, place] + 1) % 8
        moved = (model.encode(model.embed(changed)) - before).abs().amax(dim=2)[0] > 0
        assert moved.tolist() == [False] * (place + 1) + [True] * (11 - place)


@torch.no_grad()
def test_without_the_shift_a_token_knows_its_own_pixel_and_the_start_is_not_read():
    model, numbers = small(shift=False), some_numbers(1)
    before = model.encode(model.embed(numbers))
    numbers[0, 5] = (numbers[0, 5] + 1) % 8
    moved = (model.encode(model.embed(numbers)) - before).abs().amax(dim=2)[0] > 0
    assert moved.tolist() == [False] * 5 + [True] * 7


@torch.no_grad()
def test_a_model_that_is_not_causal_looks_everywhere_but_at_hidden_colours():
    model, numbers = small(causal=False, shift=False), some_numbers(1)
    hidden = torch.arange(12)[None] == 7
    before = model.encode(model.embed(numbers, hidden))
    numbers[0, 7] = (numbers[0, 7] + 1) % 8
    assert torch.equal(model.encode(model.embed(numbers, hidden)), before)
    numbers[0, 3] = (numbers[0, 3] + 1) % 8
    assert (model.encode(model.embed(numbers, hidden)) - before).abs().amax(dim=2).gt(0).all()
    assert len(model.colour_embedding.weight) == 8  # there is no start


@torch.no_grad()
def test_what_is_kept_of_earlier_pixels_gives_the_same_tokens():
    model, numbers, cache = small(), some_numbers(), None
    tokens = model.embed(numbers)
    cache = model.new_cache()
    piecewise = [model.encode(part, cache) for part in tokens.split([5, 1, 4, 2], dim=1)]
    torch.testing.assert_close(torch.cat(piecewise, dim=1), model.encode(tokens), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_the_papers_norm_has_no_mean_and_no_bias():
    norm, x = small().norm, torch.randn(2, 3, 16) + 5
    expected = norm.weight * x / (x.square().mean(dim=-1, keepdim=True) + 1e-5).sqrt()
    torch.testing.assert_close(norm(x), expected)


def test_its_activation():
    x = torch.linspace(-4, 4, 17)
    torch.testing.assert_close(ACTIVATIONS["quick_gelu"]()(x), x / (1 + (-1.702 * x).exp()))


@torch.no_grad()
def test_what_a_block_adds_to():
    for residual, first in (("tokens", lambda block, x: x), ("normed", lambda block, x: block.norm1(x))):
        torch.manual_seed(0)
        block = Block(models.altered("igpt", SMALL, residual=residual)).eval()
        x = torch.randn(1, 12, 16)
        between = first(block, x) + block.attention(block.norm1(x))
        torch.testing.assert_close(block(x), between + block.mlp(block.norm2(between)))


def test_the_nearest_colour_is_found_by_comparing_with_all(monkeypatch):
    monkeypatch.setattr("vitrail.models.igpt.igpt.PIXELS_AT_ONCE", 100)
    palette, pixels = torch.rand(20, 3, dtype=torch.float64), torch.rand(333, 3, dtype=torch.float64)
    expected = [min(range(20), key=lambda k: float(((palette[k] - pixel) ** 2).sum())) for pixel in pixels]
    assert nearest(pixels, palette).tolist() == expected
    with torch.autocast("cpu", torch.bfloat16):  # which would not tell near colours apart
        assert nearest(pixels, palette).tolist() == expected


def test_colours_become_images_again():
    model, numbers = small(), some_numbers()
    images = model.images(numbers)
    assert images.shape == (2, 3, 4, 3)
    assert torch.equal(images[1, :, 2, 1], model.palette[numbers[1, 2 * 3 + 1]])  # row by row
    assert torch.equal(model.numbers(images), numbers)


@pytest.mark.parametrize(("colours", "channels"), [(2, 1), (16, 1), (5, 2), (64, 3), (512, 3), (100, 3)])
def test_colours_for_before_there_is_a_palette_are_all_different(colours, channels):
    palette = lattice(colours, channels)
    assert palette.shape == (colours, channels)
    assert len(palette.unique(dim=0)) == colours
    assert palette.min() == -1
    assert palette.max() == 1


@torch.no_grad()
@pytest.mark.parametrize("layer", range(5))
def test_features_are_what_the_attention_of_a_layer_reads(layer):
    model = small(feature_layer=layer)
    images = torch.rand(2, 3, 4, 3) * 2 - 1
    tokens = model.embed(model.numbers(images))
    for block in model.blocks[:layer]:
        tokens = block(tokens)
    expected = model.blocks[layer].norm1(tokens) if layer < 4 else model.encode(model.embed(model.numbers(images)))
    features = model(images)
    torch.testing.assert_close(features.tokens, expected)
    torch.testing.assert_close(features.pooled, expected.mean(dim=1))


def test_the_features_are_the_middles_where_nothing_is_said():
    images = torch.rand(2, 3, 4, 3) * 2 - 1
    assert torch.equal(small()(images).pooled, small(feature_layer=2)(images).pooled)


@pytest.mark.parametrize("layer", range(5))
def test_a_classifier_trains_what_its_features_depend_on(layer):
    model = small(feature_layer=layer)
    model(torch.rand(2, 3, 4, 3) * 2 - 1).tokens.square().sum().backward()
    reached = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert reached == {name for name, _ in model.named_parameters() if model.reads(name)}

    task = Classification("igpt", small(feature_layer=layer), ("a", "b"), Preprocess((4, 3)))
    adapt(task, "full")
    assert {name for name, parameter in task.backbone.named_parameters() if parameter.requires_grad} == reached


@pytest.mark.parametrize("layer", [2, 4])
def test_low_rank_changes_are_made_where_they_are_read(layer):
    task = Classification("igpt", small(feature_layer=layer), ("a", "b"), Preprocess((4, 3)))
    adapt(task, "lora", rank=2)
    trained = {name.split(".")[1] for name, x in task.backbone.named_parameters() if x.requires_grad}
    assert trained == {str(block) for block in range(layer)}


@torch.no_grad()
def test_weights_for_another_size_and_for_grey_images():
    model = small()
    other = models.create("igpt", **{**vars(SMALL), "image_size": (8, 6), "channels": 1})
    weights = other.adapted(model.state_dict(), model.config, "bicubic")
    other.load_state_dict(weights)
    torch.testing.assert_close(other.palette[:, 0], model.palette @ torch.tensor(LUMA))
    assert other(torch.rand(1, 1, 8, 6)).grid == (8, 6)
    grey = models.altered("igpt", SMALL, channels=1)
    shades = IGPT(grey).palette
    back = model.adapted({**model.state_dict(), "palette": shades}, grey, "bicubic")
    assert torch.equal(back["palette"], shades.expand(-1, 3))


def test_it_begins_as_the_released_code_does():
    torch.manual_seed(0)
    model = IGPT(models.altered("igpt", SIZES["igpt-nano"], width=256, heads=4))
    expected = {
        "positions": 0.01,
        "colour_embedding.weight": 0.02,
        "blocks.3.attention.qkv.weight": 1 / 16,
        "blocks.3.attention.proj.weight": 1 / math.sqrt(256 * 4),
        "blocks.3.mlp.fc1.weight": 0.02,
        "blocks.3.mlp.fc2.weight": 0.02,
    }
    parameters = dict(model.named_parameters())
    assert {name: parameters[name].std().item() for name in expected} == pytest.approx(expected, rel=0.03)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"heads": 3}, "width 16 is not divisible by 3 heads"),
        ({"colours": 1}, "at least 2 colours, not 1"),
        ({"feature_layer": 5}, "layer 0 to 4, not 5"),
        ({"feature_layer": -1}, "layer 0 to 4, not -1"),
    ],
)
def test_shapes_that_cannot_be(changes, words):
    with pytest.raises(SettingError, match=words):
        small(**changes)


def test_images_of_another_size():
    with pytest.raises(SettingError, match="reads images of 4x3 pixels, not 3x4"):
        small()(torch.zeros(1, 3, 3, 4))
