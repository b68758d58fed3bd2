"""Next pixel and masked pixel: their losses against loops, what is painted, and that they learn."""

import json
import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from vitrail import models
from vitrail.data.preprocess import Preprocess
from vitrail.data.rng import uniform
from vitrail.data.sample import Batch, Sample
from vitrail.data.source import Source
from vitrail.errors import SettingError
from vitrail.nn.sampling import sample
from vitrail.objectives import OBJECTIVES, MaskedPixel, NextPixel

SIZE = (5, 4)
SHAPE = {"width": 32, "depth": 2, "heads": 2, "mlp": 64, "image_size": SIZE, "colours": 8}
HALF = Preprocess(SIZE)


def learner(kind=NextPixel, options=None, **changes):
    torch.manual_seed(0)
    backbone = models.create("igpt", **{**SHAPE, **kind.usual_config, **changes})
    return kind("igpt", backbone, HALF, options)


def randomised(module, scale=0.3):
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter) * scale)
    return module.eval()


def batch(count=3, seed=0):
    rng = np.random.default_rng(seed)
    images = torch.from_numpy(rng.integers(256, size=(count, 3, *SIZE), dtype=np.uint8))
    return Batch(images, ("",) * count, draws=torch.from_numpy(rng.integers(2**63, size=count)))


@pytest.mark.parametrize("kind", [NextPixel, MaskedPixel])
def test_before_training_every_colour_is_as_likely(kind):
    assert learner(kind).loss(batch())["loss"].item() == pytest.approx(math.log(8))


@torch.no_grad()
def test_the_loss_of_the_next_pixel_asks_for_each_in_turn():
    """One pixel after the other, each predicted from a start and those before it only."""
    ours, images = randomised(learner()), batch()
    backbone = ours.backbone
    numbers = backbone.numbers(ours.normalized(images.images))
    start, colours = backbone.colour_embedding.weight[8], backbone.colour_embedding.weight[:8]
    nats = []
    for row in numbers.tolist():
        for place, right in enumerate(row):
            known = torch.stack([start, *(colours[k] for k in row[:place])]) + backbone.positions[0, : place + 1]
            logits = ours.output.weight @ backbone.encode(known[None])[0, -1]
            nats.append(-logits.log_softmax(0)[right].item())
    assert ours.loss(images)["loss"].item() == pytest.approx(sum(nats) / len(nats), abs=1e-5)


@torch.no_grad()
def test_the_loss_of_hidden_pixels_is_an_images_mean_and_then_the_images():
    ours, images = randomised(learner(MaskedPixel, MaskedPixel.Options(mask_ratio=0.4))), batch()
    numbers = ours.backbone.numbers(ours.normalized(images.images))
    hidden = uniform(images.draws, 20) < 0.4
    assert 0 < hidden.sum() < 60
    losses = []
    for row, mask in zip(numbers, hidden, strict=True):
        tokens = ours.backbone.colour_embedding.weight[row].clone()
        tokens[mask] = 0  # what it is; where it is stays known
        logits = ours.backbone.encode(tokens[None] + ours.backbone.positions)[0] @ ours.output.weight.T
        nats = -logits.log_softmax(1)[torch.arange(20), row]
        losses.append(nats[mask].mean().item())
    assert ours.loss(images)["loss"].item() == pytest.approx(sum(losses) / 3, abs=1e-5)


def test_an_image_of_which_nothing_is_hidden_has_no_loss():
    ours = learner(MaskedPixel, MaskedPixel.Options(mask_ratio=1e-9))
    assert ours.loss(batch())["loss"].item() == 0


def test_as_much_is_hidden_as_was_asked_for():
    hidden = uniform(torch.arange(500), 256) < MaskedPixel.Options().mask_ratio
    assert hidden.float().mean().item() == pytest.approx(0.15, abs=0.005)


@pytest.mark.parametrize("kind", [NextPixel, MaskedPixel])
def test_it_learns_a_few_images_by_heart(kind):
    ours, images = learner(kind), batch(2)
    optimizer = torch.optim.AdamW(ours.parameters(), lr=3e-3, weight_decay=0)
    for step in range(150 if kind is NextPixel else 250):
        draws = torch.arange(2) + 2 * step
        loss = ours.loss(replace(images, draws=draws))["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.3  # of 2.08; the very first pixel of two images cannot be known
    if kind is NextPixel:
        numbers = ours.eval().backbone.numbers(ours.normalized(images.images))
        painted = ours.paint(numbers[:, :8], lambda logits: logits.argmax(dim=-1))
        assert torch.equal(painted, numbers)


@torch.no_grad()
@pytest.mark.parametrize("known", [0, 1, 7, 19, 20])
def test_painting_goes_on_with_what_is_likeliest(known):
    ours = randomised(learner())
    numbers = ours.backbone.numbers(ours.normalized(batch().images))
    told = []
    painted = ours.paint(numbers[:, :known], lambda logits: logits.argmax(dim=-1), told.append)
    expected = numbers.clone()
    for place in range(known, 20):
        expected[:, place] = ours.logits(expected)[:, place].argmax(dim=-1)
    assert torch.equal(painted, expected)
    assert told == list(range(1, 21 - known))


@torch.no_grad()
def test_painted_colours_are_drawn_as_often_as_they_are_likely():
    ours = randomised(learner(), 0.2)
    choose = partial(sample, generator=torch.Generator().manual_seed(0))
    first = ours.paint(torch.empty(3000, 0, dtype=torch.int64), choose)[:, 0]
    expected = ours.logits(torch.zeros(1, 20, dtype=torch.int64))[0, 0].softmax(0)
    torch.testing.assert_close(first.bincount(minlength=8) / 3000, expected, atol=0.03, rtol=0)


class Pictures(Source):
    """Images of 3 colours, and of very many."""

    def __init__(self, colours):
        rng = np.random.default_rng(0)
        known = rng.integers(256, size=(colours, 3), dtype=np.uint8)
        self.images = known[rng.integers(colours, size=(10, *SIZE))]

    def __len__(self):
        return len(self.images)

    def name(self, index):
        return str(index)

    def label(self, index):
        return None

    def encoded(self, index):
        raise NotImplementedError

    def sample(self, index):
        return Sample(self.images[index], str(index))


@pytest.mark.parametrize(("there_are", "colours"), [(3, 3), (200, 8)])
def test_the_palette_is_that_of_the_images(there_are, colours):
    source = Pictures(there_are)
    ours = learner().fitted_to(source, seed=0)
    assert ours.backbone.config.colours == len(ours.backbone.palette) == len(ours.output.weight) == colours
    assert ours.backbone.colour_embedding.num_embeddings == colours + 1
    images = torch.from_numpy(source.images).permute(0, 3, 1, 2)
    seen = ours.preprocess.denormalize(ours.backbone.images(ours.backbone.numbers(ours.normalized(images))))
    off = (seen.float() - images.float()).abs().mean().item()
    assert off == 0 if there_are == 3 else off < 45
    assert torch.equal(learner().fitted_to(source, seed=0).backbone.palette, ours.backbone.palette)


@pytest.mark.parametrize("kind", [NextPixel, MaskedPixel])
def test_it_is_described_by_json_and_its_weights(kind):
    ours = randomised(learner(kind).fitted_to(Pictures(3), seed=0))
    other = OBJECTIVES[ours.name].from_json(json.loads(json.dumps(ours.to_json())))
    other.load_state_dict(ours.state_dict())
    assert torch.equal(other.eval().loss(batch())["loss"], ours.loss(batch())["loss"])


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: learner(NextPixel, causal=False), "no riddle"),
        (lambda: learner(NextPixel, shift=False), "no riddle"),
        (lambda: learner(MaskedPixel, causal=True), "causal=false"),
        (lambda: learner(MaskedPixel, MaskedPixel.Options(mask_ratio=0.0)), "above 0 and below 1, not 0"),
        (lambda: learner(MaskedPixel, MaskedPixel.Options(mask_ratio=1.0)), "above 0 and below 1, not 1"),
        (lambda: NextPixel("vit-nano", models.create("vit-nano"), HALF), "vit-nano is none"),
    ],
)
def test_what_cannot_be(build, words):
    with pytest.raises(SettingError, match=words):
        build()
