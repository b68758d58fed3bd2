import math

import pytest
import torch

from vitrail.errors import SettingError
from vitrail.nn.position import sincos_2d


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
