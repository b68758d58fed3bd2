"""An image has one answer, to the last bit, whatever it is computed together with."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from vitrail.data.preprocess import Preprocess
from vitrail.recipes.predicting.alike import ON_CPU, FullProducts, alike, fewest_alike
from vitrail.tasks import Classification

spec = importlib.util.spec_from_file_location("sizes", Path(__file__).parents[2] / "contract" / "test_models.py")
sizes = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sizes)


def classification(name):
    backbone = sizes.randomised(sizes.small(name)).eval()
    channels = backbone.config.channels
    half = (0.5,) * channels
    preprocess = Preprocess(tuple(backbone.config.image_size), mean=half, std=half, channels=channels)
    task = Classification(name, backbone, [str(number) for number in range(1000)], preprocess).eval()
    for parameter in task.head.parameters():
        nn.init.normal_(parameter, std=0.1)
    return task


def images(task, count):
    shape = (count, task.preprocess.channels, *task.preprocess.size)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("model", ["vit-nano", "vit-s16", "pvt-v2-b0", "t2t-7", "resnet-20", "lenet-5"])
def test_answers_do_not_depend_on_the_batch(model, dtype):
    task = classification(model)
    batch = images(task, 8)
    fewest = fewest_alike(task, batch, dtype)
    if fewest is None:
        pytest.skip("on this machine the kernels of PyTorch depend on the batch in another way; the service says so")
    whole = alike(task, batch, dtype)
    for some in (slice(4, 5), slice(2, 4), slice(1, 7)):
        as_loaded = torch.from_numpy(batch[some].permute(0, 2, 3, 1).numpy().copy()).permute(0, 3, 1, 2)
        assert torch.equal(alike(task, as_loaded, dtype), whole[some])
        assert torch.equal(alike(task, batch[some], dtype, fewest), whole[some])


def test_they_are_what_the_model_says():
    task = classification("vit-nano")
    batch = images(task, 5)
    with torch.inference_mode():
        torch.testing.assert_close(alike(task, batch, torch.float32), task(batch), atol=1e-5, rtol=1e-5)


def test_few_images_are_filled_up_and_the_rest_is_cut_off():
    seen = []

    def compute(images):
        seen.append(len(images))
        assert not torch.is_grad_enabled()
        return images.flatten(1).float().sum(dim=1, keepdim=True)

    batch = torch.randint(0, 256, (6, 3, 2, 2), dtype=torch.uint8)
    for size in (1, 3, 4, 6):
        sums = batch[:size].flatten(1).float().sum(dim=1, keepdim=True)
        torch.testing.assert_close(alike(compute, batch[:size], torch.float32), sums)
    assert seen == [ON_CPU, ON_CPU, 4, 6]
    assert alike(compute, batch[:1], torch.float32, fewest=1).shape == (1, 1)
    assert seen[-1] == 1


def depends_until(limit):
    """A computation whose answers have other bits where fewer than ``limit`` images are computed at once."""
    return lambda images: images.flatten(1).float().mean(dim=1, keepdim=True) + (0.01 if len(images) < limit else 0)


@pytest.mark.parametrize(("limit", "fewest"), [(0, 1), (2, 2), (3, 3), (4, 4)])
def test_the_fewest_images_that_are_safe_are_found(limit, fewest):
    batch = torch.arange(48, dtype=torch.uint8).reshape(8, 3, 2, 1)
    assert fewest_alike(depends_until(limit), batch, torch.float32) == fewest


def test_none_where_even_large_batches_differ():
    batch = torch.arange(48, dtype=torch.uint8).reshape(8, 3, 2, 1)
    assert fewest_alike(depends_until(5), batch, torch.float32) is None


def test_answers_that_depend_on_the_place_in_the_batch_are_noticed():
    batch = torch.arange(48, dtype=torch.uint8).reshape(8, 3, 2, 1)

    def compute(images):
        return images.flatten(1).float().mean(dim=1, keepdim=True) + torch.arange(len(images))[:, None]

    assert fewest_alike(compute, batch, torch.float32) is None


@pytest.mark.parametrize("rows", [1, 2, 5, 15, 16, 40])
@pytest.mark.parametrize("leading", [(), (3,)])
def test_products_of_few_rows_are_those_of_many(rows, leading):
    linear, x = nn.Linear(24, 100), torch.randn(*leading, rows, 24)
    many = torch.cat([x.reshape(-1, 24), torch.randn(64, 24)])
    with torch.inference_mode(), FullProducts():
        few = linear(x)
        assert few.shape == (*leading, rows, 100)
        torch.testing.assert_close(
            few.reshape(-1, 100), F.linear(many, linear.weight, linear.bias)[: few[..., 0].numel()]
        )
        assert linear(torch.randn(24)).shape == (100,)
