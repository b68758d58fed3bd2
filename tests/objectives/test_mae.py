"""MAE: what is hidden, what is painted, and what the loss compares."""

import math

import numpy as np
import pytest
import torch

from vitrail import models
from vitrail.data.preprocess import Preprocess
from vitrail.data.sample import Batch
from vitrail.errors import SettingError
from vitrail.objectives import MAE
from vitrail.objectives.mae import count_seen, fixed_positions, patchify, unpatchify
from vitrail.train.optim import build_optimizer

SHAPE = {"width": 24, "depth": 2, "heads": 3, "mlp": 48, "image_size": (16, 24), "patch_size": 4}
HALF = (0.5, 0.5, 0.5)


def an_mae(options=None, **changes) -> MAE:
    torch.manual_seed(0)
    backbone = models.create("vit-micro", **{**MAE.usual_config, **SHAPE, **changes})
    preprocess = Preprocess(backbone.config.image_size, mean=HALF, std=HALF)
    return MAE("vit-micro", backbone, preprocess, MAE.Options(**(options or {})))


def a_batch(count=3) -> Batch:
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (count, 3, 16, 24), dtype=np.uint8))
    return Batch(images, tuple("abcdefgh"[:count]), draws=torch.arange(count) * 7 + 1)


def test_patches_are_squares_row_by_row_with_the_channels_last():
    images = torch.randn(2, 3, 8, 12)
    patches = patchify(images, 4)
    assert patches.shape == (2, 6, 48)
    fourth = images[1, :, 4:8, 0:4]  # second row, first column
    assert torch.equal(patches[1, 3], torch.stack([fourth[:, y, x] for y in range(4) for x in range(4)]).flatten())
    assert torch.equal(unpatchify(patches, (2, 3), 4), images)


def test_positions_are_those_of_the_paper():
    positions = fixed_positions((2, 3), 16, prefix=2)
    assert positions.shape == (1, 8, 16)
    assert not positions[0, :2].any()
    for y in range(2):
        for x in range(3):
            angles = [[place / 10_000 ** (i / 4) for i in range(4)] for place in (x, y)]
            expected = [f(a) for axis in angles for f in (math.sin, math.cos) for a in axis]
            torch.testing.assert_close(positions[0, 2 + 3 * y + x], torch.tensor(expected))


@pytest.mark.parametrize(("patches", "ratio", "seen"), [(196, 0.75, 49), (64, 0.75, 16), (64, 0.3, 44), (16, 0.9, 1)])
def test_how_many_patches_are_seen(patches, ratio, seen):
    assert count_seen(patches, ratio) == seen


@pytest.mark.parametrize("ratio", [0, 1, -0.5, 1.5, 0.99, float("nan")])
def test_some_patches_are_hidden_and_some_seen(ratio):
    with pytest.raises(SettingError, match=r"mask ratio of .* does not do for 24 patches: some must be hidden"):
        an_mae({"mask_ratio": ratio})


@torch.no_grad()
@pytest.mark.parametrize("normalise", [True, False])
def test_the_loss_is_the_mean_square_over_the_hidden_patches_alone(normalise):
    learner, batch = an_mae({"normalise_patches": normalise}).eval(), a_batch()
    images = (batch.images.numpy() / 255 - 0.5) / 0.5
    order = learner.order(batch.draws)
    painted = learner.paint(torch.tensor(images, dtype=torch.float32), order[:, :6]).numpy()
    errors = []
    for image, pixels, numbers in zip(images, painted, order.tolist(), strict=True):
        for number in numbers[6:]:
            y, x = 4 * (number // 6), 4 * (number % 6)
            patch = image[:, y : y + 4, x : x + 4].transpose(1, 2, 0).flatten()
            if normalise:
                patch = (patch - patch.mean()) / math.sqrt(patch.var(ddof=1) + 1e-6)
            errors.append(np.mean((pixels[number] - patch) ** 2))
    assert len(errors) == 3 * 18
    assert learner.loss(batch)["loss"].item() == pytest.approx(np.mean(errors), rel=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("position", ["learned", "sincos", "rotary"])
def test_what_is_painted_depends_on_what_is_seen_alone(position):
    learner, seen = an_mae(position=position).eval(), torch.tensor([[3, 20, 11]])
    images = torch.randn(1, 3, 16, 24)
    hidden = torch.ones(1, 24, 1).scatter(1, seen.unsqueeze(-1), 0.0)
    noise = torch.randn(1, 24, 48)
    painted = learner.paint(images, seen)
    other = learner.paint(images + unpatchify(noise * hidden, (4, 6), 4), seen)
    torch.testing.assert_close(painted, other)
    other = learner.paint(images + unpatchify(noise * (1 - hidden), (4, 6), 4), seen)
    assert (painted - other).abs().max() > 1e-3


@torch.no_grad()
@pytest.mark.parametrize("position", ["learned", "sincos", "rotary"])
def test_every_patch_keeps_its_place_in_whatever_order_they_are_seen(position):
    learner, images = an_mae(position=position, registers=2).eval(), torch.randn(2, 3, 16, 24)
    everything = torch.arange(24).expand(2, -1)
    shuffled = torch.stack([torch.randperm(24), torch.randperm(24)])
    painted = learner.paint(images, everything)
    torch.testing.assert_close(learner.paint(images, shuffled), painted, atol=1e-5, rtol=1e-4)
    tokens, grid = learner.backbone.embed(images)
    whole = learner.backbone.encode(tokens, grid)
    torch.testing.assert_close(learner.backbone.encode(tokens, grid, everything), whole)
    swapped = learner.paint(images.roll(4, dims=3), everything)
    assert (swapped - painted.roll(1, dims=1)).abs().max() > 1e-3  # places matter


def test_a_sample_has_its_mask_whatever_is_beside_it():
    learner = an_mae()
    order = learner.order(torch.tensor([5, 6, 7]))
    assert torch.equal(order.sort(dim=1).values, torch.arange(24).expand(3, -1))
    assert torch.equal(learner.order(torch.tensor([7, 5])), order[[2, 0]])
    assert not torch.equal(order[0], order[1])


def test_each_patch_is_hidden_equally_often():
    learner = an_mae()
    hidden = learner.order(torch.arange(4000))[:, learner.seen :]
    shares = torch.bincount(hidden.flatten(), minlength=24) / 4000
    assert (shares - 0.75).abs().max() < 0.03  # four standard deviations


def test_standardised_patches_and_back():
    learner, images = an_mae().eval(), torch.randn(2, 3, 16, 24) * 3 + 1
    targets = learner.targets(images)
    torch.testing.assert_close(targets.mean(dim=-1), torch.zeros(2, 24), atol=1e-5, rtol=0)
    torch.testing.assert_close(targets.var(dim=-1), torch.ones(2, 24), atol=1e-4, rtol=0)
    torch.testing.assert_close(learner.pixels(targets, images), patchify(images, 4), atol=1e-5, rtol=1e-5)
    plain = an_mae({"normalise_patches": False})
    assert torch.equal(plain.pixels(plain.targets(images), images), patchify(images, 4))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"pool": "class", "class_token": False},
        {"class_token": False},
        {"class_position": False},
        {"registers": 3, "position": "rotary"},
        {"pool": "map", "class_token": False, "position": "sincos"},
        {"norm": "pooled"},
        {"representation": 8, "layer_scale": 0.1},
        {"parallel": True, "qk_norm": True, "qkv_bias": False, "norm_bias": False},
    ],
)
def test_any_vit_learns_with_all_its_trained_weights(changes):
    learner = an_mae(**changes).fitted_to(None, 0).train()
    learner.loss(a_batch())["loss"].backward()
    idle = [name for name, weight in learner.named_parameters() if weight.requires_grad and weight.grad is None]
    assert idle == []  # which several processes would wait for
    assert learner(a_batch().images).pooled.shape == (3, learner.backbone.width)


def test_positions_begin_as_the_papers_and_are_not_trained():
    learner = an_mae().fitted_to(None, 0)
    positions = learner.backbone.positions
    assert torch.equal(positions, fixed_positions((4, 6), 24, prefix=1))
    assert learner.backbone.class_token.std() > 0.01
    learner.loss(a_batch())["loss"].backward()
    optimizer = build_optimizer(learner, "adamw", 1e-2, 0.05)
    before = positions.clone(), learner.decoder_positions.clone()
    optimizer.step()
    assert torch.equal(positions, before[0])
    assert torch.equal(learner.decoder_positions, before[1])


def test_it_learns_what_can_be_seen():
    """Of pictures of one colour each, one patch tells all: the mean colour is no answer, the patch's is."""
    learner = an_mae({"normalise_patches": False, "decoder_depth": 1}, depth=1).fitted_to(None, 0)
    optimizer = build_optimizer(learner, "adamw", 3e-3, 0.0)
    generator = torch.Generator().manual_seed(0)

    def a_loss(number: int) -> torch.Tensor:
        colours = torch.randint(0, 256, (16, 3, 1, 1), generator=generator, dtype=torch.uint8)
        draws = torch.arange(16) + 16 * number
        return learner.loss(Batch(colours.expand(-1, -1, 16, 24), ("",) * 16, draws=draws))["loss"]

    for number in range(150):
        a_loss(number).backward()
        optimizer.step()
        optimizer.zero_grad()
    with torch.no_grad():
        assert sum(a_loss(1000 + number).item() for number in range(4)) / 4 < 0.1 / 3  # a tenth of their variance


def test_it_is_described_as_it_is():
    learner = an_mae({"mask_ratio": 0.6, "decoder_width": 16, "decoder_heads": 2})
    again = MAE.from_json(learner.to_json())
    assert again.options == learner.options
    assert again.backbone.config == learner.backbone.config
    again.load_state_dict(learner.state_dict())


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"decoder_width": 30}, "width that is a multiple of 4"),
        ({"decoder_width": 40, "decoder_heads": 3}, "a decoder of width 40, depth 1, 3 heads"),
        ({"decoder_depth": -1}, "a decoder of width 32, depth -1"),
    ],
)
def test_a_decoder_that_cannot_be(options, problem):
    with pytest.raises(SettingError, match=problem):
        an_mae(options)


def test_only_plain_patches_can_be_hidden():
    preprocess = Preprocess((32, 32), mean=HALF, std=HALF)
    for model in ("vit-micro", "resnet-18"):  # the first has a convolutional stem of its own
        with pytest.raises(SettingError, match=f"hides a ViT's patches; {model} is none, or has another stem"):
            MAE(model, models.create(model, image_size=32), preprocess)
