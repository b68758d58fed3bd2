import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vitrail.errors import SettingError
from vitrail.nn.rope import Rotation, rotary_2d, rotate

GRID, WIDTH, BASE = (3, 5), 16, 100.0


def queries(tokens, dtype=torch.float32, seed=0):
    return torch.randn(2, 3, tokens, WIDTH, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def angles_by_loops(rows, columns, width, base):
    """Of each patch: width / 4 angles from its row, then width / 4 from its column; a full turn a unit at period 1."""
    periods = [base ** (i / (width // 4)) for i in range(width // 4)]
    turns = []
    for row in range(rows):
        for column in range(columns):
            y, x = -1 + (2 * row + 1) / rows, -1 + (2 * column + 1) / columns
            turns.append([2 * math.pi * place / period for place in (y, x) for period in periods])
    return torch.tensor(turns, dtype=torch.float64)


@pytest.mark.parametrize("prefix", [0, 1, 5])
@pytest.mark.parametrize("grid", [(3, 5), (1, 1), (7, 2)])
def test_turning_is_multiplying_complex_numbers(grid, prefix):
    """Numbers i and i + d / 2 of a head are the real and the imaginary part of one complex number."""
    x = queries(prefix + grid[0] * grid[1])
    turned = rotate(x, rotary_2d(grid, WIDTH, BASE))
    pairs = torch.complex(*x[:, :, prefix:].double().chunk(2, dim=-1))
    angles = angles_by_loops(*grid, WIDTH, BASE)
    expected = pairs * torch.polar(torch.ones_like(angles), angles)
    torch.testing.assert_close(
        turned[:, :, prefix:].double(), torch.cat([expected.real, expected.imag], dim=-1), atol=1e-5, rtol=1e-5
    )


def test_tokens_before_the_patches_are_left_alone():
    x = queries(4 + 15)
    turned = rotate(x, rotary_2d(GRID, WIDTH))
    assert torch.equal(turned[:, :, :4], x[:, :, :4])
    assert not torch.isclose(turned[:, :, 4:], x[:, :, 4:]).all()


def test_lengths_stay():
    x = queries(15)
    torch.testing.assert_close(rotate(x, rotary_2d(GRID, WIDTH)).norm(dim=-1), x.norm(dim=-1))


@given(
    rows=st.integers(2, 6), columns=st.integers(2, 6), axis=st.integers(0, 1), base=st.floats(2, 1000), data=st.data()
)
@settings(deadline=None, max_examples=40)
def test_products_depend_on_how_far_apart_two_patches_are_on_each_axis(rows, columns, axis, base, data):
    """One query and one key at every pair of places: shifted together along either axis, their product stays."""
    rotation = rotary_2d((rows, columns), WIDTH, base)
    rotation = Rotation(rotation.cos.double(), rotation.sin.double())
    q, k = (queries(1, torch.float64, seed).expand(-1, -1, rows * columns, -1) for seed in (0, 1))
    products = (rotate(q, rotation) @ rotate(k, rotation).mT).unflatten(-1, (rows, columns))
    products = products.unflatten(-3, (rows, columns))  # (B, heads, row and column of the query, of the key)
    side = (rows, columns)[axis]
    steps = data.draw(st.integers(1, side - 1))
    here, there = products, products
    for query_or_key in (2, 4):
        here = here.narrow(query_or_key + axis, 0, side - steps)
        there = there.narrow(query_or_key + axis, steps, side - steps)
    torch.testing.assert_close(here, there, atol=1e-4, rtol=1e-4)


def test_another_distance_is_another_product():
    q, k = (queries(1, seed=seed).expand(-1, -1, 15, -1) for seed in (0, 1))
    products = rotate(q, rotary_2d(GRID, WIDTH)) @ rotate(k, rotary_2d(GRID, WIDTH)).mT
    assert (products[..., 0, 0] - products[..., 0, 1]).abs().max() > 0.1  # a step along the row
    assert (products[..., 0, 0] - products[..., 0, 5]).abs().max() > 0.1  # a step along the column


def test_a_finer_grid_has_the_same_places_in_between():
    """Three times as fine, the middle of each three patches in a row lies where the coarse patch has its centre."""
    fine, coarse = rotary_2d((9, 15), WIDTH), rotary_2d((3, 5), WIDTH)
    middle = fine.cos.reshape(9, 15, WIDTH)[1::3, 1::3].reshape(15, WIDTH)
    torch.testing.assert_close(middle, coarse.cos, atol=1e-5, rtol=1e-5)


def test_half_precision_stays_half_precision():
    x = queries(15).bfloat16()
    turned = rotate(x, rotary_2d(GRID, WIDTH))
    assert turned.dtype == torch.bfloat16
    torch.testing.assert_close(turned.float(), rotate(x.float(), rotary_2d(GRID, WIDTH)), atol=0.05, rtol=0.02)


@pytest.mark.parametrize("width", [2, 6, 18])
def test_head_widths_that_do_not_fit(width):
    with pytest.raises(SettingError, match=f"a head width that is a multiple of 4, not {width}"):
        rotary_2d(GRID, width)
