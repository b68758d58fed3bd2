import numpy as np
import pytest
import torch
from torch import nn

from vitrail import models
from vitrail.data.preprocess import Preprocess
from vitrail.explain.deletion import blurred, deletion, insertion
from vitrail.tasks import Classification

SIDE = 8


def a_task():
    """A task whose first logit is the sum of the red channel's pixels, and whose second one is 0."""
    torch.manual_seed(0)
    backbone = models.create("vit-nano", channels=3, image_size=(SIDE, SIDE))
    task = Classification("vit-nano", backbone, ("red", "none"), Preprocess((SIDE, SIDE)))
    task.forward = lambda pixels: torch.stack([pixels[:, 0].sum(dim=(1, 2)) / 16, torch.zeros(len(pixels))], dim=1)
    return task.eval()


def an_image():
    """Red 255 in the 16 pixels of one quarter, elsewhere the grey that is 0 when normalised, but for rounding."""
    image = torch.full((1, 3, SIDE, SIDE), 128, dtype=torch.uint8)
    image[0, 0, :4, :4] = 255
    return image


TRUE = torch.zeros(1, SIDE, SIDE)
TRUE[0, :4, :4] = 1
CLASS = torch.tensor([0])


def by_hand(pixels, end, heat, steps):
    """The curve by replacing pixel after pixel in a Python loop."""
    order = sorted(range(SIDE * SIDE), key=lambda place: -heat.flatten()[place].item())
    curve = []
    for step in range(steps + 1):
        mixed = pixels.clone()
        for place in order[: round(step / steps * SIDE * SIDE)]:
            mixed[0, :, place // SIDE, place % SIDE] = end[0, :, place // SIDE, place % SIDE]
        curve.append(float((mixed[0, 0].sum() / 16).sigmoid()))
    return curve


@pytest.mark.parametrize("seed", [0, 1])
def test_curves_are_those_of_a_loop_over_pixels(seed):
    task, image = a_task(), an_image()
    heat = torch.rand(1, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))
    pixels = task.preprocess.normalize(image)
    covered = by_hand(pixels, torch.zeros_like(pixels), heat, steps=7)
    np.testing.assert_allclose(deletion(task, image, heat, CLASS, steps=7)[0], covered, atol=1e-6)
    shown = by_hand(blurred(pixels), pixels, heat, steps=7)
    np.testing.assert_allclose(insertion(task, image, heat, CLASS, steps=7)[0], shown, atol=1e-6)


def test_a_true_map_takes_the_score_away_first_and_brings_it_back_first():
    task, image = a_task(), an_image()
    true, false = (deletion(task, image, heat, CLASS).mean() for heat in (TRUE, 1 - TRUE))
    assert true < false - 0.1
    true, false = (insertion(task, image, heat, CLASS).mean() for heat in (TRUE, 1 - TRUE))
    assert true > false


def test_curves_begin_and_end_where_they_should():
    task, image = a_task(), an_image()
    heat = torch.rand(1, SIDE, SIDE)
    whole = task.scores(task(task.preprocess.normalize(image)))[0, 0]
    assert deletion(task, image, heat, CLASS)[0, 0] == pytest.approx(float(whole))
    assert deletion(task, image, heat, CLASS)[0, -1] == pytest.approx(0.5)
    assert insertion(task, image, heat, CLASS)[0, -1] == pytest.approx(float(whole))


def test_blurring_keeps_flat_images_and_the_mean_of_others():
    flat = torch.full((2, 3, 64, 48), 0.7)
    torch.testing.assert_close(blurred(flat), flat)
    noise = torch.randn(1, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    assert blurred(noise).std() < 0.15
    weights = nn.functional.avg_pool2d  # boxes three times over: the middle of an image is their convolution
    inner = weights(weights(weights(noise, 11, 1), 11, 1), 11, 1)
    torch.testing.assert_close(blurred(noise)[..., 15:-15, 15:-15], inner)
