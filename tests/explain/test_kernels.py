"""The lectures' example to the last number, and kernels on pictures by loops."""

import numpy as np
import pytest
import torch

from vitrail.errors import SettingError
from vitrail.explain.kernels import KERNELS, apply, convolve, max_pool

PICTURE = [[int(digit) for digit in row] for row in ["000000", "012210", "024420", "013310", "012310", "001100"]]
LAPLACIAN = [[0, -1, -1, 0], [-2, -5, -5, -2], [2, -2, -1, 2], [-1, 0, -5, 0]]


def test_the_laplacian_of_the_lectures_picture():
    filtered = apply(PICTURE, KERNELS["edge-2"])
    assert filtered.convolved.tolist() == LAPLACIAN
    assert filtered.result.tolist() == LAPLACIAN


def test_with_padding_it_keeps_its_size_and_its_inside():
    filtered = apply(PICTURE, KERNELS["edge-2"], padding=1)
    assert filtered.result.shape == (6, 6)
    assert filtered.result[1:-1, 1:-1].tolist() == LAPLACIAN
    assert filtered.result[0].tolist() == [0, 1, 2, 2, 1, 0]  # zeros around: what lies below, since the rest is 0
    assert filtered.result[5].tolist() == [0, 2, -1, 0, 2, 0]


def test_max_pooling_of_the_lectures_picture():
    """The slides print 3 where the arithmetic gives 2."""
    assert apply(PICTURE, KERNELS["edge-2"], pool=2).result.tolist() == [[0, 0], [2, 2]]


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("padding", [0, 1, 2])
@pytest.mark.parametrize("side", [1, 2, 3])
@pytest.mark.parametrize("channels", [(), (1,), (3,)])
def test_every_size_by_loops(channels, side, padding, stride):
    rng = np.random.default_rng(0)
    image, kernel = rng.integers(0, 256, (7, 9, *channels), dtype=np.uint8), rng.standard_normal((side, side))
    H, W = 7 + 2 * padding, 9 + 2 * padding
    padded = np.zeros((H, W, *channels))
    padded[padding : padding + 7, padding : padding + 9] = image
    rows = [
        [
            sum(kernel[i, j] * padded[top + i, left + j] for i in range(side) for j in range(side))
            for left in range(0, W - side + 1, stride)
        ]
        for top in range(0, H - side + 1, stride)
    ]
    np.testing.assert_allclose(apply(image, kernel, padding, stride).result, np.array(rows), atol=1e-9)


def test_it_is_what_a_convolutional_layer_computes():
    image, kernel = torch.randn(11, 8, dtype=torch.float64), torch.randn(3, 3, dtype=torch.float64)
    layer = torch.nn.functional.conv2d(image[None, None], kernel[None, None], padding=1, stride=2)
    np.testing.assert_allclose(convolve(image.numpy(), kernel.numpy(), 1, 2), layer[0, 0].numpy(), atol=1e-12)
    pooled = torch.nn.functional.max_pool2d(layer, 2)
    np.testing.assert_allclose(apply(image, kernel, 1, 2, 2).result, pooled[0, 0].numpy(), atol=1e-12)


def test_what_the_kernels_do_to_a_flat_colour():
    """A mean, and what adds itself only, leave it as it is; edges leave nothing of it."""
    flat = np.full((5, 5, 3), 7, np.uint8)
    for name, kernel in KERNELS.items():
        expected = 0 if name.startswith("edge") else 7
        np.testing.assert_allclose(apply(flat, kernel).result, expected, atol=1e-12)
    assert np.array_equal(apply(PICTURE, KERNELS["identity"], padding=1).result, PICTURE)


def test_no_kernel_of_the_table_changes_when_it_is_turned():
    assert all(np.array_equal(np.rot90(kernel, 2), kernel) for kernel in KERNELS.values())


def test_pooling_leaves_out_what_is_over():
    assert max_pool(np.arange(15.0).reshape(3, 5), 2).tolist() == [[6, 8]]
    assert max_pool(np.arange(15.0).reshape(3, 5), 1).tolist() == np.arange(15.0).reshape(3, 5).tolist()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"padding": -1}, "the padding must be 0 or more, not -1"),
        ({"stride": 0}, "the stride must be 1 or more, not 0"),
        ({"pool": 0}, "have a side of 1 or more, not 0"),
        ({"pool": 5}, "there is no square of 5x5 to pool in 4x4 values"),
        ({"kernel": np.ones((9, 9)), "padding": 1}, "a kernel of 9x9 is larger than the picture, 8x8 with its padding"),
        ({"kernel": np.ones((3, 2))}, "a kernel is a square of numbers, not 3x2"),
        ({"kernel": np.ones(3)}, "a kernel is a square of numbers, not 3"),
    ],
)
def test_what_makes_no_sense_is_refused(changes, message):
    with pytest.raises(SettingError, match=message):
        apply(**{"image": PICTURE, "kernel": KERNELS["edge-2"], **changes})
