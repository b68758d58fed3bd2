import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from vitrail.errors import SettingError
from vitrail.heads.linear import LinearHead
from vitrail.models.t2t.t2t import SIZES, Config, T2TViT, sinusoid
from vitrail.models.t2t.tokens import SPLITS, Split, TokenPerformer, grids, restructured, soft_split

# All tensors of the authors' networks with a classifier of 1,000 classes at 224 pixels, those included that are not
# trained (positions, random directions); and the millions that their README has, which counts so, too.
PUBLISHED = {
    "t2t-7": (4_310_222, 4.3),
    "t2t-10": (5_889_230, 5.9),
    "t2t-12": (6_941_902, 6.9),
    "t2t-14": (21_545_550, 21.5),
    "t2t-19": (39_177_422, 39.2),
    "t2t-24": (64_105_934, 64.1),
    "t2t-t-14": (21_541_070, 21.5),
    "t2t-t-19": (39_172_942, 39.2),
    "t2t-t-24": (64_101_454, 64.1),
}
TINY = Config(24, 2, 3, 48, token_width=8, image_size=(48, 32))


def build(config=TINY, **changes):
    torch.manual_seed(0)
    return T2TViT(replace(config, **changes)).eval()


def count(config):
    with torch.device("meta"):
        model = T2TViT(config)
        head = LinearHead(model.width, 1000)
    return sum(x.numel() for x in (*model.state_dict().values(), *head.parameters()))


@pytest.mark.parametrize("name", SIZES)
def test_published_parameter_counts(name):
    exact, millions = PUBLISHED[name]
    assert count(SIZES[name]) == exact
    assert round(exact / 1e6, 1) == millions


def test_published_parameter_count_at_384_pixels():
    assert round(count(replace(SIZES["t2t-14"], image_size=(384, 384))) / 1e6, 1) == 21.7


def test_every_published_size_is_checked_here():
    assert PUBLISHED.keys() == SIZES.keys()


@pytest.mark.parametrize("split", [*SPLITS, Split(2, 3, 0)])
def test_a_soft_split_takes_overlapping_windows_row_by_row(split):
    x = torch.randn(2, 3, 11, 9)
    padded = F.pad(x, (split.padding,) * 4)
    windows = [
        padded[:, :, top : top + split.kernel, left : left + split.kernel].flatten(1)
        for top in range(0, padded.shape[2] - split.kernel + 1, split.stride)
        for left in range(0, padded.shape[3] - split.kernel + 1, split.stride)
    ]
    assert torch.equal(soft_split(x, split), torch.stack(windows, dim=1))


def test_tokens_lie_on_their_map_row_by_row():
    tokens = torch.randn(2, 6, 5)
    map_ = restructured(tokens, (2, 3))
    assert all(torch.equal(map_[:, :, n // 3, n % 3], tokens[:, n]) for n in range(6))


@pytest.mark.parametrize("size", [(224, 224), (384, 384), (224, 160)])
def test_three_splits_come_to_a_sixteenth(size):
    assert grids(size) == [(size[0] // n, size[1] // n) for n in (4, 8, 16)]


@pytest.mark.parametrize("size", [(3, 3), (37, 50), (49, 31), (224, 5)])
def test_sizes_that_sixteen_does_not_divide_work(size):
    features = build()(torch.randn(1, 3, *size))
    assert features.grid == grids(size)[-1]
    assert features.maps[0].shape == (1, 24, *features.grid)
    assert features.tokens.isfinite().all()


def test_positions_by_their_formula():
    """Vaswani et al. 2017, section 3.5, number by number."""
    positions = sinusoid(5, 6)
    for position in range(5):
        for i in range(3):
            angle = position / 10_000 ** (2 * i / 6)
            assert positions[position, 2 * i].item() == pytest.approx(math.sin(angle), abs=1e-6)
            assert positions[position, 2 * i + 1].item() == pytest.approx(math.cos(angle), abs=1e-6)


def test_a_new_network_has_the_positions_of_its_own_grid():
    assert torch.equal(build().positions[0], sinusoid(1 + 3 * 2, 24))
    assert torch.equal(build(image_size=(64, 80)).positions[0], sinusoid(1 + 4 * 5, 24))


@pytest.mark.parametrize("size", [(96, 96), (32, 80)])
@torch.no_grad()
def test_weights_of_another_image_size_take_their_positions_with_them(size):
    """What is fed at another size and what is adapted to it see the same positions: those of the weights, resampled."""
    model, other = build(), build(image_size=size)
    other.load_state_dict(other.adapted(model.state_dict(), model.config, "bicubic"))
    rows, columns = (n // 16 for n in size)
    grid = sinusoid(7, 24)[1:].T.reshape(1, 24, 3, 2)
    expected = F.interpolate(grid, (rows, columns), mode="bicubic")[0].flatten(1).T
    assert torch.equal(other.positions[0, :1], sinusoid(1, 24))
    torch.testing.assert_close(other.positions[0, 1:], expected, atol=1e-6, rtol=0)
    images = torch.randn(2, 3, *size)
    assert torch.equal(model(images).tokens, other(images).tokens)


@pytest.mark.parametrize("attention", ["performer", "transformer"])
@torch.no_grad()
def test_grey_images_give_what_they_gave_as_colour(attention):
    """With the same norm for each channel, as in a new network; the norm's mean stands for the three otherwise."""
    model, grey = (build(token_attention=attention, channels=channels).double() for channels in (3, 1))
    norm = model.tokens_to_token.attention1.norm1
    for values in (norm.weight, norm.bias):
        values.copy_(torch.randn(49).repeat(3))
    grey.load_state_dict(grey.adapted(model.state_dict(), model.config, "bicubic"))
    images = torch.randn(2, 1, 48, 32, dtype=torch.float64)
    torch.testing.assert_close(grey(images).tokens, model(images.repeat(1, 3, 1, 1)).tokens, atol=1e-10, rtol=1e-10)


@torch.no_grad()
def test_further_channels_repeat_those_there_are():
    model, other = build(), build(channels=5)
    weights = {name: torch.randn_like(value) for name, value in model.state_dict().items()}
    adapted = other.adapted(weights, model.config, "bicubic")
    for name, scale in (("kqv.weight", 3 / 5), ("norm1.weight", 1), ("norm1.bias", 1)):
        name = f"tokens_to_token.attention1.{name}"
        before, after = weights[name].unflatten(-1, (3, 49)), adapted[name].unflatten(-1, (5, 49))
        for channel in range(5):
            torch.testing.assert_close(after[..., channel, :], before[..., channel % 3, :] * scale)


def test_the_performers_directions_are_weights_that_are_not_trained():
    model = build()
    name = "tokens_to_token.attention2.directions"
    directions = model.state_dict()[name]
    assert name not in dict(model.named_parameters())
    torch.testing.assert_close(directions @ directions.T, 4 * torch.eye(4))  # m = 8 / 2, orthogonal, of length √m


def test_the_performer_survives_keys_that_no_query_sees():
    performer = TokenPerformer(8, 8).eval()
    far = torch.full((1, 5, 8), 100.0)
    assert torch.equal(performer.linear_attention(far, far, torch.randn(1, 5, 8)), torch.zeros(1, 5, 8))


def test_the_performer_drops_out_in_training_alone():
    performer = TokenPerformer(8, 8)
    x = torch.randn(2, 50, 8)
    assert not torch.equal(performer.train()(x, (5, 10)), performer(x, (5, 10)))
    assert torch.equal(performer.eval()(x, (5, 10)), performer(x, (5, 10)))


def test_the_transformer_module_has_no_dropout():
    model = build(token_attention="transformer").train()
    images = torch.randn(2, 3, 48, 32)
    assert torch.equal(model(images).tokens, model(images).tokens)


def test_layers_count_the_blocks():
    model = build()
    assert model.depth == 3
    assert model.layer("class_token") == model.layer("tokens_to_token.project.weight") == 0
    assert model.layer("blocks.1.mlp.fc1.weight") == 2
    assert model.layer("norm.bias") == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"heads": 5}, "the width 24 is not divisible by 5 heads"),
        ({"token_attention": "linear"}, "no token attention 'linear'; known are: performer, transformer"),
        ({"image_size": (2, 64)}, "an image of 2x64 pixels is too small"),
    ],
)
def test_what_cannot_be_built_is_said(changes, message):
    with pytest.raises(SettingError, match=message):
        build(**changes)


def test_an_image_that_is_too_small_is_named():
    with pytest.raises(SettingError, match="an image of 64x2 pixels is too small"):
        build()(torch.randn(1, 3, 64, 2))
