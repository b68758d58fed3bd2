"""Colours of places: components against an eigendecomposition, alike places alike."""

import numpy as np
import pytest
import torch

from vitrail import models
from vitrail.data.preprocess import Preprocess
from vitrail.explain.parts import colours, draw_parts, parts
from vitrail.metrics.draw import save
from vitrail.tasks import Classification


def test_components_of_all_places_by_the_eigenvectors_of_the_covariance():
    torch.manual_seed(0)
    maps = torch.randn(2, 6, 3, 4) * torch.tensor([4.0, 0.3, 2, 1, 0.1, 0.5])[None, :, None, None]
    places = maps.permute(0, 2, 3, 1).reshape(-1, 6).numpy().astype(float)
    _, vectors = np.linalg.eigh(np.cov(places, rowvar=False))
    found = colours(maps).view(-1, 3).numpy()
    for number in range(3):
        values = (places - places.mean(axis=0)) @ vectors[:, -1 - number]
        scaled = (values - values.min()) / (values.max() - values.min())
        same, mirrored = np.abs(found[:, number] - scaled).max(), np.abs(found[:, number] - (1 - scaled)).max()
        assert min(same, mirrored) < 1e-5


def test_colours_do_not_depend_on_the_sign_that_the_decomposition_happens_to_find():
    """The features' mirror image has mirrored components and the same signs of weights: mirrored colours."""
    maps = torch.randn(1, 5, 4, 4)
    torch.testing.assert_close(colours(-maps), 1 - colours(maps), atol=1e-5, rtol=0)


def test_two_kinds_of_places_get_two_colours_in_all_images():
    kinds = torch.randint(0, 2, (3, 1, 4, 4))
    found = colours(torch.cat([kinds * 2.0, 1.0 - kinds], dim=1))
    reds = found[..., 0]
    assert set(reds.flatten().round(decimals=4).tolist()) == {0.0, 1.0}
    assert len(reds[kinds[:, 0] == 1].unique()) == 1


@pytest.mark.parametrize(("depth", "places"), [(1, (2, 2)), (2, (3, 3)), (8, (1, 1)), (8, (1, 2))])
def test_few_components_are_no_trouble(depth, places):
    found = colours(torch.randn(1, depth, *places))
    assert found.shape == (1, *places, 3)
    assert found.isfinite().all()


@pytest.mark.parametrize("name", ["lenet-5", "resnet-18", "vit-ti16", "swin-t"])
def test_every_backbone_has_parts(name, tmp_path):
    backbone = models.create(name, **({} if name == "lenet-5" else {"image_size": (64, 64)}))
    channels = backbone.config.channels
    half = (0.5,) * channels
    task = Classification(
        name, backbone, "ab", Preprocess(backbone.config.image_size, channels=channels, mean=half, std=half)
    )
    images = torch.randint(0, 256, (2, channels, *backbone.config.image_size), dtype=torch.uint8)
    found = parts(task.eval(), images)
    assert found.shape == (2, *task.features(images).grid, 3)
    assert (found.min(), found.max()) == (0, 1)
    shown = images.permute(0, 2, 3, 1).numpy()
    figure = draw_parts(shown, ["a cat", "b"], found.numpy())
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["a cat", "b", "", ""]
    save(figure, tmp_path / "parts.png")
