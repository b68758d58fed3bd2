import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vitrail.errors import SettingError
from vitrail.nn.rope import (
    Rotation,
    axial_angles,
    geometric_frequencies,
    mixed_angles,
    patch_centres,
    patch_numbers,
    rotary_1d,
    rotary_2d,
    rotate,
    rotation,
)

GRID, WIDTH, BASE = (3, 5), 16, 100.0


def queries(tokens, dtype=torch.float32, seed=0):
    return torch.randn(2, 3, tokens, WIDTH, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def mixed(grid, pairs="neighbours", seed=2):
    """A rotation of three heads by random frequencies, and these, ``(2, 3, WIDTH / 2)`` for rows, then columns."""
    frequencies = torch.randn(2, 3, WIDTH // 2, generator=torch.Generator().manual_seed(seed)).double()
    return rotation(mixed_angles(patch_numbers(grid), frequencies), pairs), frequencies


def as_complex(x, pairs):
    """Pairs of features as one complex number each."""
    if pairs == "halves":
        return torch.complex(*x.double().chunk(2, dim=-1))
    return torch.complex(x[..., ::2].double(), x[..., 1::2].double())


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
    angles = angles_by_loops(*grid, WIDTH, BASE)
    expected = as_complex(x[:, :, prefix:], "halves") * torch.polar(torch.ones_like(angles), angles)
    torch.testing.assert_close(as_complex(turned[:, :, prefix:], "halves"), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("pairs", ["halves", "neighbours"])
@pytest.mark.parametrize("grid", [(3, 5), (7, 2)])
def test_mixed_angles_turn_each_head_by_its_own_frequencies_on_both_axes(grid, pairs):
    x = queries(1 + grid[0] * grid[1])
    turns, frequencies = mixed(grid, pairs)
    turned = as_complex(rotate(x, turns), pairs)
    numbers = as_complex(x, pairs)
    assert torch.equal(turned[:, :, 0], numbers[:, :, 0])
    for head in range(3):
        for row in range(grid[0]):
            for column in range(grid[1]):
                token = 1 + row * grid[1] + column
                angle = row * frequencies[0, head] + column * frequencies[1, head]
                expected = numbers[:, head, token] * torch.polar(torch.ones_like(angle), angle)
                torch.testing.assert_close(turned[:, head, token], expected, atol=1e-5, rtol=1e-5)


def test_mixed_angles_along_the_axes_are_axial_ones():
    places, frequencies = patch_numbers((4, 3)), geometric_frequencies(WIDTH, BASE)
    along = torch.zeros(2, WIDTH // 2)
    along[0, : WIDTH // 4], along[1, WIDTH // 4 :] = frequencies, frequencies
    torch.testing.assert_close(mixed_angles(places, along), axial_angles(places, frequencies))


def test_mixed_angles_of_many_blocks_at_once():
    frequencies = torch.randn(2, 4, 3, WIDTH // 2)
    together = mixed_angles(patch_numbers(GRID), frequencies)
    assert together.shape == (4, 3, 15, WIDTH // 2)
    for block in range(4):
        assert torch.equal(together[block], mixed_angles(patch_numbers(GRID), frequencies[:, block]))


def test_both_ways_to_pair_features_are_one_but_for_the_order_of_features():
    """What stands at i and i + d / 2 in one stands at 2 i and 2 i + 1 in the other."""
    x, angles = queries(4 + 15), axial_angles(patch_centres(GRID), geometric_frequencies(WIDTH, BASE))
    order = torch.arange(WIDTH).view(2, -1).T.flatten()  # 0, 8, 1, 9, …
    halves, neighbours = rotate(x, rotation(angles, "halves")), rotate(x[..., order], rotation(angles, "neighbours"))
    torch.testing.assert_close(neighbours, halves[..., order], atol=0, rtol=0)
    assert not torch.isclose(rotate(x, rotation(angles, "neighbours")), halves).all()


def test_patches_are_counted_row_by_row():
    numbers = patch_numbers((2, 3)).tolist()
    assert numbers == [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2]]
    expected = [[-1 / 2, -2 / 3], [-1 / 2, 0], [-1 / 2, 2 / 3], [1 / 2, -2 / 3], [1 / 2, 0], [1 / 2, 2 / 3]]
    torch.testing.assert_close(patch_centres((2, 3)), torch.tensor(expected))


@pytest.mark.parametrize("places", [patch_numbers, patch_centres])
def test_rows_turn_the_first_half_of_the_pairs_and_columns_the_second(places):
    angles = axial_angles(places(GRID), geometric_frequencies(WIDTH, BASE)).unflatten(0, GRID).unflatten(2, (2, -1))
    assert (angles[:, :, 0] == angles[:, :1, 0]).all()
    assert (angles[:, :, 1] == angles[:1, :, 1]).all()
    assert len(angles[:, 0, 0, 0].unique()) == 3
    assert len(angles[0, :, 1, 0].unique()) == 5


def test_tokens_before_the_patches_are_left_alone():
    x = queries(4 + 15)
    turned = rotate(x, rotary_2d(GRID, WIDTH))
    assert torch.equal(turned[:, :, :4], x[:, :, :4])
    assert not torch.isclose(turned[:, :, 4:], x[:, :, 4:]).all()


@pytest.mark.parametrize("turns", [rotary_2d(GRID, WIDTH), mixed(GRID)[0]])
def test_lengths_stay(turns):
    x = queries(15)
    torch.testing.assert_close(rotate(x, turns).norm(dim=-1), x.norm(dim=-1))


@given(
    rows=st.integers(2, 6),
    columns=st.integers(2, 6),
    axis=st.integers(0, 1),
    base=st.floats(2, 1000),
    kind=st.sampled_from(["centres", "numbers", "mixed"]),
    data=st.data(),
)
@settings(deadline=None, max_examples=60)
def test_products_depend_on_how_far_apart_two_patches_are_on_each_axis(rows, columns, axis, base, kind, data):
    """One query and one key at every pair of places: shifted together along either axis, their product stays."""
    turns = {
        "centres": lambda: rotary_2d((rows, columns), WIDTH, base),
        "numbers": lambda: rotation(
            axial_angles(patch_numbers((rows, columns)), geometric_frequencies(WIDTH, base)), "neighbours"
        ),
        "mixed": lambda: mixed((rows, columns), seed=data.draw(st.integers(0, 100)))[0],
    }[kind]()
    turns = Rotation(turns.cos.double(), turns.sin.double(), turns.pairs)
    q, k = (queries(1, torch.float64, seed).expand(-1, -1, rows * columns, -1) for seed in (0, 1))
    products = (rotate(q, turns) @ rotate(k, turns).mT).unflatten(-1, (rows, columns))
    products = products.unflatten(-3, (rows, columns))  # (B, heads, row and column of the query, of the key)
    side = (rows, columns)[axis]
    steps = data.draw(st.integers(1, side - 1))
    here, there = products, products
    for query_or_key in (2, 4):
        here = here.narrow(query_or_key + axis, 0, side - steps)
        there = there.narrow(query_or_key + axis, steps, side - steps)
    torch.testing.assert_close(here, there, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("turns", [rotary_2d(GRID, WIDTH), mixed(GRID)[0]])
def test_another_distance_is_another_product(turns):
    q, k = (queries(1, seed=seed).expand(-1, -1, 15, -1) for seed in (0, 1))
    products = rotate(q, turns) @ rotate(k, turns).mT
    assert (products[..., 0, 0] - products[..., 0, 1]).abs().max() > 0.1  # a step along the row
    assert (products[..., 0, 0] - products[..., 0, 5]).abs().max() > 0.1  # a step along the column


def test_a_larger_grid_goes_on_counting():
    small, large = (
        rotation(axial_angles(patch_numbers(grid), geometric_frequencies(WIDTH, BASE)), "neighbours").cos
        for grid in (GRID, (6, 9))
    )
    assert torch.equal(large.unflatten(0, (6, 9))[:3, :5], small.unflatten(0, GRID))


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


def test_angles_are_never_of_half_precision():
    """In bfloat16 the 300th patch of a row would stand where the 301st does."""
    frequencies = torch.ones(2, 1, WIDTH // 2, dtype=torch.bfloat16)
    angles = mixed_angles(patch_numbers((1, 400)), frequencies)
    assert angles[0, :, 0].tolist() == list(range(400))


@pytest.mark.parametrize("width", [2, 6, 18])
def test_head_widths_that_do_not_fit(width):
    with pytest.raises(SettingError, match=f"a head width that is a multiple of 4, not {width}"):
        rotary_2d(GRID, width)


# -------------------------------------------------------------------------------------------------- one axis, for text


@pytest.mark.parametrize("pairs", ["halves", "neighbours"])
@pytest.mark.parametrize("base", [10_000.0, 500_000.0])
def test_the_exponent_of_a_pair_counted_from_one(pairs, base):
    """Theta of pair i = 1 ... d/2 is base^(-2 (i - 1) / d): the first pair turns by 1 radian a token."""
    d, length = 16, 9
    expected = torch.empty(length, d // 2, dtype=torch.complex128)
    for m in range(length):
        for i in range(1, d // 2 + 1):
            theta = base ** (-2 * (i - 1) / d)
            expected[m, i - 1] = complex(math.cos(m * theta), math.sin(m * theta))
    turned = as_complex(rotate(torch.ones(1, 1, length, d), rotary_1d(length, d, base, pairs)), pairs)[0, 0]
    torch.testing.assert_close(turned, expected * complex(1, 1), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("pairs", ["halves", "neighbours"])
@given(start=st.integers(0, 3000), shift=st.integers(0, 3000), seed=st.integers(0, 100))
@settings(deadline=None, max_examples=40)
def test_a_text_that_begins_later_has_the_same_products(pairs, start, shift, seed):
    q, k = queries(12, torch.float64, seed), queries(12, torch.float64, seed + 1)
    products = []
    for first in (start, start + shift):
        turns = rotary_1d(12, WIDTH, pairs=pairs, start=first)
        exact = Rotation(turns.cos.double(), turns.sin.double(), pairs)
        products.append(rotate(q, exact) @ rotate(k, exact).mT)
    torch.testing.assert_close(*products, atol=5e-3, rtol=1e-3)  # the angles themselves are of single precision


def test_tokens_that_go_on_are_turned_as_in_the_whole_text():
    whole, rest = rotary_1d(20, WIDTH), rotary_1d(7, WIDTH, start=13)
    torch.testing.assert_close(rest.cos, whole.cos[13:], atol=0, rtol=0)
    torch.testing.assert_close(rest.sin, whole.sin[13:], atol=0, rtol=0)


def test_the_first_token_is_not_turned():
    x = queries(1)
    assert torch.equal(rotate(x, rotary_1d(1, WIDTH)), x)


@pytest.mark.parametrize("width", [1, 7])
def test_pairs_need_an_even_head(width):
    with pytest.raises(SettingError, match=f"the head width must be even, not {width}"):
        rotary_1d(4, width)
