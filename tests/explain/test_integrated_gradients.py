"""Integrated gradients against the integral taken in many small steps, and against the paper's axioms."""

import pytest
import torch

from vitrail import models
from vitrail.data.preprocess import Preprocess
from vitrail.errors import SettingError
from vitrail.explain.integrated_gradients import integrated_gradients, integrated_gradients_map, smoothed
from vitrail.tasks import Classification

MODELS = {
    "vit-b16": {"width": 16, "depth": 2, "heads": 2, "mlp": 24, "patch_size": 8, "image_size": (24, 16)},
    "lenet-5": {"channels": 3},
    "resnet-18": {"width": 4, "depths": (1, 1, 1, 1), "image_size": (48, 32)},
    "swin-t": {"width": 8, "depths": (1, 1), "heads": (1, 2), "image_size": (32, 32)},
    "t2t-7": {"width": 16, "depth": 1, "heads": 2, "mlp": 16, "token_width": 8, "image_size": (32, 32)},  # normalises
}
MEAN = 128 / 255  # a colour that pixels can have
CLASSES = torch.tensor([2, 0])


def a_task(name, **changes):
    torch.manual_seed(0)
    backbone = models.create(name, **{**MODELS.get(name, {}), **changes})
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    task = Classification(name, backbone, ("a", "b", "c"), Preprocess(backbone.config.image_size, mean=(MEAN,) * 3))
    torch.nn.init.normal_(task.head.linear.weight)
    return task.eval()


def photographs(task):
    small = torch.rand(2, 3, 5, 4)
    return (255 * torch.nn.functional.interpolate(small, task.preprocess.size, mode="bilinear")).to(torch.uint8)


@torch.no_grad()
def rise(task, images):
    """How much the logits are above those of the baseline."""
    normalised = task.preprocess.normalize(images)
    return (task(normalised) - task(torch.zeros_like(normalised))).gather(1, CLASSES[:, None])[:, 0]


@pytest.mark.parametrize("name", MODELS)
def test_attributions_sum_up_to_the_rise_of_the_logit(name):
    task = a_task(name)
    images = photographs(task)
    expected = rise(task, images)
    assert expected.abs().min() > 0.01
    errors = {}
    for steps in (8, 32, 200):
        attributions = integrated_gradients(task, images, CLASSES, steps)
        assert attributions.shape == images.shape
        errors[steps] = ((attributions.sum(dim=(1, 2, 3)) - expected).abs().sum() / expected.abs().sum()).item()
    assert errors[32] < 0.05
    assert errors[200] < max(0.5 * errors[8], 1e-4)


def test_each_value_by_many_equal_steps():
    task = a_task("vit-b16")
    images = photographs(task)[:1]
    normalised = task.preprocess.normalize(images)
    total = torch.zeros_like(normalised)
    for k in range(300):
        point = ((k + 0.5) / 300 * normalised).requires_grad_()
        (slope,) = torch.autograd.grad(task(point)[0, 2], point)
        total += slope / 300
    torch.testing.assert_close(
        integrated_gradients(task, images, CLASSES[:1], 128), total * normalised, atol=1e-4, rtol=1e-3
    )


def test_what_does_not_differ_from_the_baseline_adds_nothing():
    task = a_task("vit-b16")
    images = photographs(task)
    images[:, :, 3:9, 5:7] = 128
    attributions = integrated_gradients(task, images, CLASSES)
    assert attributions[:, :, 3:9, 5:7].abs().max() < 1e-6
    assert attributions.abs().max() > 1e-3


def test_many_images_are_computed_as_one_is(monkeypatch):
    """Whatever part of the path is computed at once."""
    task = a_task("vit-b16")
    images = photographs(task)
    together = integrated_gradients(task, images, CLASSES)
    monkeypatch.setattr("vitrail.explain.integrated_gradients.AT_ONCE", 5)
    torch.testing.assert_close(integrated_gradients(task, images[1:], CLASSES[1:])[0], together[1])


def test_the_map_is_the_rising_part_of_each_pixel_smoothed():
    task = a_task("vit-b16")
    images = photographs(task)
    added = integrated_gradients(task, images, CLASSES).sum(dim=1).clamp(min=0)
    heat = integrated_gradients_map(task, images, CLASSES)
    torch.testing.assert_close(heat, smoothed(added, 16 / 32))
    assert heat.shape == (2, 24, 16)


def test_smoothing_is_a_gaussian():
    point = torch.zeros(1, 21, 21)
    point[0, 10, 9] = 3
    blurred = smoothed(point, 2.0)[0]
    rows, columns = torch.meshgrid(torch.arange(21) - 10.0, torch.arange(21) - 9.0, indexing="ij")
    exact = 3 * torch.exp(-(rows**2 + columns**2) / 8) / (2 * torch.pi * 4)
    torch.testing.assert_close(blurred[4:17, 3:16], exact[4:17, 3:16], atol=1e-3, rtol=0)  # cut off at 3 deviations
    assert blurred.sum().item() == pytest.approx(3, abs=1e-5)


def test_numbers_of_colours_have_no_derivatives():
    task = a_task("igpt-nano", width=8, depth=1, heads=2, mlp=8, image_size=(2, 3), feature_layer=1)
    for trained in (True, False):
        task.requires_grad_(trained)
        with pytest.raises(
            SettingError, match=r"^igpt-nano reads the numbers of colours .* such as gradcam or occlusion"
        ):
            integrated_gradients(task, photographs(task), CLASSES)
