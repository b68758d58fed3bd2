"""SimCLR's loss is what its paper says, pair by pair, and its views are of the same images."""

import math

import pytest
import torch
import torch.nn.functional as F

from vitrail import models
from vitrail.data.preprocess import Preprocess
from vitrail.data.sample import Batch
from vitrail.errors import SettingError
from vitrail.objectives.simclr import SimCLR, nt_xent
from vitrail.objectives.views import simclr_view


def preprocess(side, channels=3):
    return Preprocess((side, side), channels=channels, mean=(0.5,) * channels, std=(0.5,) * channels)


def simclr(side=16, **options):
    torch.manual_seed(0)
    backbone = models.create("resnet-20", image_size=side)
    return SimCLR("resnet-20", backbone, preprocess(side), SimCLR.Options(**options))


def vectors(count, width=6, seed=0):
    random = torch.Generator().manual_seed(seed)
    return [F.normalize(torch.randn(count, width, generator=random, dtype=torch.float64), dim=1) for _ in range(2)]


def pair_by_pair(first, second, temperature):
    """Equation 1 and algorithm 1 with loops: views 2k - 1 and 2k are of image k."""
    z = [vector for pair in zip(first, second, strict=True) for vector in pair]

    def loss(i, j):
        others = sum(math.exp(float(z[i] @ z[k]) / temperature) for k in range(len(z)) if k != i)
        return -math.log(math.exp(float(z[i] @ z[j]) / temperature) / others)

    pairs = range(len(first))
    return sum(loss(2 * k, 2 * k + 1) + loss(2 * k + 1, 2 * k) for k in pairs) / len(z)


def as_in_the_authors_program(first, second, temperature):
    """The form of google-research/simclr, objective.py: a large number is taken from a view's product with itself.

    It sums the losses of both sides, each a mean over images, where the paper's equation has the mean over all views.
    """
    count = len(first)
    mask, labels = torch.eye(count, dtype=first.dtype) * 1e9, torch.arange(count)
    aa, bb = first @ first.T / temperature - mask, second @ second.T / temperature - mask
    ab = first @ second.T / temperature
    return (F.cross_entropy(torch.cat([ab, aa], 1), labels) + F.cross_entropy(torch.cat([ab.T, bb], 1), labels)) / 2


@pytest.mark.parametrize("count", [1, 2, 7])
@pytest.mark.parametrize("temperature", [0.1, 0.5, 2.0])
def test_the_loss_is_that_of_the_paper_and_of_its_program(count, temperature):
    first, second = vectors(count)
    loss, _ = nt_xent(first, second, temperature)
    assert loss.item() == pytest.approx(pair_by_pair(first, second, temperature), abs=1e-6)
    assert loss.item() == pytest.approx(as_in_the_authors_program(first, second, temperature).item(), abs=1e-6)


def test_it_does_not_depend_on_the_order_of_the_images_nor_of_the_views():
    first, second = vectors(9)
    order = torch.randperm(9)
    loss, matched = nt_xent(first, second, 0.3)
    torch.testing.assert_close(nt_xent(first[order], second[order], 0.3), (loss, matched))
    torch.testing.assert_close(nt_xent(second, first, 0.3), (loss, matched))


def test_a_view_is_matched_where_its_twin_is_the_nearest():
    twins = torch.eye(4)
    assert nt_xent(twins, twins, 0.5)[1] == 1
    swapped = twins[[1, 0, 2, 3]]  # the first two images take each other's view for their own
    assert nt_xent(twins, swapped, 0.5)[1] == 0.5


def test_vectors_that_are_all_the_same_have_the_loss_of_guessing():
    same = F.normalize(torch.ones(8, 3), dim=1)
    assert nt_xent(same, same, 0.1)[0].item() == pytest.approx(math.log(15), abs=1e-5)


@torch.no_grad()
def test_the_loss_of_a_batch_is_that_of_its_projected_vectors():
    learner = simclr(temperature=0.2).eval()
    images, second = torch.randint(0, 256, (2, 5, 3, 16, 16), dtype=torch.uint8)
    figures = learner.loss(Batch(images, ("",) * 5, views=(second,)))
    z = [F.normalize(learner.head(learner(view).pooled), dim=1).double() for view in (images, second)]
    assert figures["loss"].item() == pytest.approx(pair_by_pair(*z, 0.2), abs=1e-5)


def test_both_views_are_made_alike_and_each_is_another():
    learner = simclr()
    assert learner.further == ((learner.augment, learner.preprocess),)
    assert learner.augment.crop_tiny
    assert not learner.parts


def test_the_views_are_the_papers():
    large, small = simclr_view(0.08, 1.0, 224), simclr_view(0.08, 0.5, 32)
    assert (large.crop_scale, large.crop_ratio, large.flip) == ((0.08, 1.0), (3 / 4, 4 / 3), 0.5)
    colour = large.colour
    assert (colour.brightness, colour.contrast, colour.saturation, colour.hue) == (0.8, 0.8, 0.8, 0.2)
    assert (colour.jitter, colour.grey, colour.blur, colour.radius) == (0.8, 0.2, 0.5, (0.1, 2.0))
    assert (small.colour.brightness, small.colour.hue, small.colour.blur) == (0.4, 0.1, 0.0)


@pytest.mark.parametrize("options", [{"temperature": 0}, {"temperature": float("nan")}, {"projection": 0}])
def test_settings_that_make_no_sense_are_refused(options):
    with pytest.raises(SettingError):
        simclr(**options)


@pytest.mark.parametrize("options", [{"smallest_view": 0}, {"smallest_view": 1.5}, {"strength": -1}])
def test_views_that_make_no_sense_are_refused(options):
    with pytest.raises(SettingError):
        simclr(**options)


@pytest.mark.parametrize("family", SimCLR.families)
def test_every_family_can_learn_so(family):
    model = next(iter(models.FAMILIES[family].sizes))
    with torch.device("meta"):
        backbone = models.create(model)
        channels, size = backbone.config.channels, backbone.config.image_size
        learner = SimCLR(model, backbone, preprocess(size[0], channels))
        vectors = learner.head(learner(torch.empty(3, channels, *size, dtype=torch.uint8)).pooled)
    assert vectors.shape == (3, 128)
