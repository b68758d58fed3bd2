import math
import typing

import numpy as np
import pytest
import torch
from PIL import Image

from vitrail.errors import SettingError
from vitrail.nn.position import Resampling, resample_positions, sincos_2d


def by_loops(rows, columns, width, temperature):
    """Each number of each place in float64: sin, cos of the column, then of the row, at width / 4 frequencies.

    The i-th frequency is 1 / temperature to the power of i / (width / 4 - 1), as MoCo v3's linspace(0, 1, width / 4)
    has it with its end included, other than the paper's own 4 i / width.
    """
    quarter = width // 4
    frequencies = [1 / temperature ** (i / (quarter - 1)) for i in range(quarter)]
    return [
        [f(place * frequency) for place in (column, row) for f in (math.sin, math.cos) for frequency in frequencies]
        for row in range(rows)
        for column in range(columns)
    ]


@pytest.mark.parametrize(("grid", "width"), [((14, 14), 64), ((3, 5), 8), ((1, 1), 12), ((40, 2), 192)])
@pytest.mark.parametrize("temperature", [10_000.0, 100.0])
def test_positions_are_those_of_the_formula(grid, width, temperature):
    positions = sincos_2d(grid, width, temperature)
    assert positions.dtype == torch.float32
    assert positions.shape == (grid[0] * grid[1], width)
    expected = torch.tensor(by_loops(*grid, width, temperature), dtype=torch.float64)
    torch.testing.assert_close(positions.double(), expected, atol=1e-7, rtol=0)


def test_no_two_places_are_alike():
    positions = sincos_2d((16, 16), 32).double()
    apart = torch.cdist(positions, positions) + 1e9 * torch.eye(256)
    assert apart.min() > 0.1


@pytest.mark.parametrize("width", [4, 10, 30, 0])
def test_widths_that_do_not_fit(width):
    with pytest.raises(SettingError, match=f"a multiple of 4 and at least 8, not {width}"):
        sincos_2d((2, 2), width)


def one_line(line, count, coordinate, kernel, reach):
    """A line of numbers at other places: for each of ``count``, the values within ``reach``, weighted by the kernel.

    Beyond its ends the line goes on with its first and last values.
    """
    result = []
    for i in range(count):
        x = coordinate(i)
        below = math.floor(x)
        around = range(below - reach + 1, below + reach + 1)
        result.append(sum(kernel(x - j) * line[min(max(j, 0), len(line) - 1)] for j in around))
    return result


def resampled(grid, size, coordinates, kernel, reach):
    """A grid ``(H, W)`` at another size, line by line in float64, first along the columns, then along the rows."""
    down = [one_line(line, size[0], coordinates[0], kernel, reach) for line in grid.T.tolist()]
    across = [one_line(line, size[1], coordinates[1], kernel, reach) for line in zip(*down, strict=True)]
    return torch.tensor(across, dtype=torch.float64)


def triangle(x):
    return max(0.0, 1 - abs(x))


def cubic(x, a=-0.75):
    """Keys' cubic convolution with the a that PyTorch has where it does not antialias."""
    x = abs(x)
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * (x**3 - 5 * x**2 + 8 * x - 4) if x < 2 else 0.0


def corners_kept(before, after):
    return lambda i: i * (before - 1) / max(after - 1, 1)


def centres_kept(before, after, offset=0.0):
    return lambda i: (i + 0.5) * before / (after + offset) - 0.5


SIZES = [((7, 7), (12, 12)), ((7, 7), (5, 4)), ((14, 10), (7, 13)), ((3, 5), (1, 1)), ((1, 4), (3, 8))]


def learned(before, width=3, prefix=1):
    torch.manual_seed(0)
    return torch.randn(1, prefix + before[0] * before[1], width)


def as_grid(positions, prefix, size):
    return positions[0, prefix:].reshape(*size, -1).double()


@pytest.mark.parametrize(("before", "after"), SIZES)
def test_google_resamples_as_scipys_zoom_of_order_1(before, after):
    """scipy.ndimage.zoom(grid, order=1): linear between the old places, first on first and last on last."""
    positions = learned(before)
    places = [corners_kept(o, n) for o, n in zip(before, after, strict=True)]
    result = as_grid(resample_positions(positions, before, after, "bilinear"), 1, after)
    for channel, expected in zip(result.unbind(-1), as_grid(positions, 1, before).unbind(-1), strict=True):
        torch.testing.assert_close(channel, resampled(expected, after, places, triangle, reach=1), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("before", "after"), SIZES)
@pytest.mark.parametrize(("resampling", "offset"), [("bicubic", 0.0), ("bicubic-offset", 0.1)])
def test_bicubic_with_and_without_dinos_tenth_of_a_patch(before, after, resampling, offset):
    positions = learned(before)
    places = [centres_kept(o, n, offset) for o, n in zip(before, after, strict=True)]
    result = as_grid(resample_positions(positions, before, after, resampling), 1, after)
    for channel, expected in zip(result.unbind(-1), as_grid(positions, 1, before).unbind(-1), strict=True):
        torch.testing.assert_close(channel, resampled(expected, after, places, cubic, reach=2), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("before", "after"), SIZES)
def test_antialiased_bicubic_is_pillows(before, after):
    positions = learned(before)
    result = as_grid(resample_positions(positions, before, after, "bicubic-antialias"), 1, after)
    for channel, grid in zip(result.unbind(-1), as_grid(positions, 1, before).unbind(-1), strict=True):
        picture = Image.fromarray(grid.float().numpy()).resize(after[::-1], Image.Resampling.BICUBIC)
        torch.testing.assert_close(channel.float(), torch.from_numpy(np.array(picture)), atol=1e-5, rtol=0)


@pytest.mark.parametrize("resampling", typing.get_args(Resampling))
@pytest.mark.parametrize("prefix", [0, 1, 5])
def test_the_first_positions_stay_and_a_constant_stays_constant(resampling, prefix):
    positions = learned((6, 4), prefix=prefix)
    positions[:, prefix:] = 2.5
    other = resample_positions(positions, (6, 4), (5, 9), resampling)
    assert other.shape == (1, prefix + 45, 3)
    assert torch.equal(other[:, :prefix], positions[:, :prefix])
    torch.testing.assert_close(other[:, prefix:], torch.full((1, 45, 3), 2.5), atol=1e-5, rtol=0)


@pytest.mark.parametrize("resampling", typing.get_args(Resampling))
def test_computed_in_float32_and_returned_as_given(resampling):
    positions = learned((6, 4)).bfloat16()
    other = resample_positions(positions, (6, 4), (3, 8), resampling)
    assert other.dtype == torch.bfloat16
    assert torch.equal(other, resample_positions(positions.float(), (6, 4), (3, 8), resampling).bfloat16())


@pytest.mark.parametrize("resampling", typing.get_args(Resampling))
def test_the_same_grid_is_left_alone(resampling):
    positions = learned((6, 4))
    assert torch.equal(resample_positions(positions, (6, 4), (6, 4), resampling), positions)


def test_square_and_not_square_grids_of_as_many_patches_differ():
    positions = learned((4, 4))
    assert not torch.equal(resample_positions(positions, (4, 4), (2, 8), "bicubic"), positions)
