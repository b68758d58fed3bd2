"""First layers as pictures: which kernels they are, and their components against an eigendecomposition."""

import numpy as np
import pytest
import torch

from vitrail import models
from vitrail.errors import SettingError
from vitrail.explain.first_layer import as_tiles, draw_first_layer, first_layer, input_kernels, patch_components
from vitrail.explain.mosaic import GAP, mosaic
from vitrail.metrics.draw import save


def test_components_by_the_eigenvectors_of_the_covariance():
    torch.manual_seed(0)
    mixing = torch.randn(12, 12) * torch.logspace(0, -2, 12)
    kernels = (torch.randn(40, 12) @ mixing + 5).view(40, 3, 2, 2)
    components, shares = patch_components(kernels, 5)
    values, vectors = np.linalg.eigh(np.cov(kernels.flatten(1).numpy().astype(float), rowvar=False))
    expected = vectors[:, ::-1].T[:5]
    products = np.abs(np.sum(components.flatten(1).numpy() * expected, axis=1))
    np.testing.assert_allclose(products, 1, atol=1e-5)
    np.testing.assert_allclose(shares.numpy(), values[::-1][:5] / values.sum(), rtol=1e-4)


def test_signs_are_certain():
    kernels = torch.randn(20, 3, 4, 4)
    components, _ = patch_components(kernels)
    largest = components.flatten(1).gather(1, components.flatten(1).abs().argmax(dim=1, keepdim=True))
    assert (largest > 0).all()
    mirrored, _ = patch_components(-kernels)
    torch.testing.assert_close(components, mirrored, atol=1e-4, rtol=0)


@pytest.mark.parametrize(("shape", "count"), [((100, 3, 4, 4), 28), ((10, 3, 4, 4), 9), ((100, 1, 2, 2), 4)])
def test_there_are_no_more_components_than_kernels_differ_by(shape, count):
    components, shares = patch_components(torch.randn(shape))
    assert components.shape == (count, *shape[1:])
    assert shares.shape == (count,)


@pytest.mark.parametrize(
    ("name", "changes", "count", "caption"),
    [
        ("resnet-18", {}, 64, "all 64 kernels of 7 × 7 pixels"),
        ("lenet-5", {}, 6, "all 6 kernels of 5 × 5 pixels"),
        ("vit-ti16", {"depth": 1}, 28, "first 28 principal components of 192 kernels of 16 × 16 pixels: "),
        (
            "swin-t",
            {"depths": (1,), "heads": (3,)},
            28,
            "first 28 principal components of 96 kernels of 4 × 4 pixels: ",
        ),
    ],
)
def test_few_kernels_are_shown_and_of_many_their_components(name, changes, count, caption, tmp_path):
    layer = first_layer(models.create(name, **changes))
    assert len(layer.tiles) == count
    assert layer.caption.startswith(caption)
    assert (layer.tiles.min(), layer.tiles.max()) == (0, 1)
    save(draw_first_layer(layer, name), tmp_path / "layer.png")


def test_a_linear_map_of_windows_is_one_of_kernels():
    """T2T's first layer, whose window is cut from an image here."""
    backbone = models.create("t2t-7", width=8, depth=1, heads=2, mlp=8, token_width=8, image_size=(32, 32))
    kernels = input_kernels(backbone)
    assert kernels.shape == (24, 3, 7, 7)
    window = torch.randn(1, 3, 7, 7)
    as_conv = torch.nn.functional.conv2d(window, kernels).flatten()
    as_unfolded = backbone.state_dict()[backbone.input_kernel] @ torch.nn.functional.unfold(window, 7)[0, :, 0]
    torch.testing.assert_close(as_conv, as_unfolded)


def test_a_table_of_colours_has_no_kernels():
    backbone = models.create("igpt-nano", width=8, depth=1, heads=2, mlp=8, image_size=(2, 2))
    with pytest.raises(SettingError, match="it has no kernels to show"):
        first_layer(backbone)


def test_tiles_have_a_scale_of_their_own():
    kernels = torch.tensor([[[[1.0, 3.0]]], [[[-10.0, -10.0]]]])
    assert as_tiles(kernels).tolist() == [[[[0], [1]]], [[[0], [0]]]]
    assert as_tiles(torch.rand(2, 5, 3, 3)).shape == (2, 3, 3, 1)


def test_a_mosaic_has_every_tile_once_and_in_order():
    tiles = np.arange(5.0)[:, None, None, None] * np.ones((5, 40, 50, 3)) / 10
    picture = mosaic(tiles, 3)
    assert picture.shape == (2 * 40 + GAP, 3 * 50 + 2 * GAP, 3)
    middles = [[picture[20 + row * (40 + GAP), 25 + column * (50 + GAP), 0] for column in range(3)] for row in range(2)]
    assert middles == [[0, 0.1, 0.2], [0.3, 0.4, 1]]
    assert (picture[40 : 40 + GAP] == 1).all()


def test_tiny_tiles_are_enlarged_by_whole_pixels():
    picture = mosaic(np.array([[[[0.0], [0.5]], [[0.25], [1]]]]))
    assert picture.shape == (32, 32, 1)
    assert picture[::16, ::16, 0].tolist() == picture[15::16, 15::16, 0].tolist() == [[0, 0.5], [0.25, 1]]
