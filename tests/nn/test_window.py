"""Windows against their definition, place by place."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from vitrail.nn.window import (
    MASKED,
    Windows,
    fit,
    merge,
    partition,
    relative_positions,
    resample_table,
    shift_mask,
)

sizes = st.tuples(st.integers(1, 9), st.integers(1, 9))
windows = st.tuples(st.integers(1, 4), st.integers(1, 4)).flatmap(
    lambda size: st.builds(
        Windows,
        st.just(size),
        st.tuples(st.integers(0, size[0] - 1), st.integers(0, size[1] - 1)),
        st.booleans(),
    )
)


def places(size, windows):
    """Which place of the map each place of each window shows, in order; None where it shows padding."""
    (height, width), (h, w) = size, windows.size
    rows, columns = -(-height // h) * h, -(-width // w) * w

    def source(place, length, padded, shift):
        """The map's row (or column) that is at a place of the padded and shifted one."""
        if windows.pad_first:
            place = (place + shift) % padded
            return place if place < length else None
        return (place + shift) % length if place < length else None

    return [
        [
            (source(i * h + y, height, rows, windows.shift[0]), source(j * w + x, width, columns, windows.shift[1]))
            for y, x in itertools.product(range(h), range(w))
        ]
        for i, j in itertools.product(range(rows // h), range(columns // w))
    ]


@given(size=sizes, windows=windows)
@settings(max_examples=60, deadline=None)
def test_every_window_shows_the_places_that_it_should(size, windows):
    x = torch.arange(1, 1 + size[0] * size[1] * 4, dtype=torch.float32).reshape(2, *size, 2)
    cut = partition(x, windows)
    expected = [
        [[0.0, 0.0] if None in (row, column) else x[b, row, column].tolist() for row, column in window]
        for b in range(2)
        for window in places(size, windows)
    ]
    assert cut.flatten(0, 1).tolist() == expected


@given(size=sizes, windows=windows)
@settings(max_examples=60, deadline=None)
def test_merging_undoes_partitioning(size, windows):
    x = torch.randn(2, *size, 3)
    assert torch.equal(merge(partition(x, windows), windows, size), x)


@given(size=sizes, window=st.tuples(st.integers(1, 4), st.integers(1, 4)))
@settings(max_examples=60, deadline=None)
def test_places_see_each_other_if_the_shift_has_not_brought_them_together(size, window):
    windows = Windows(window, (window[0] // 2, window[1] // 2))
    padded = tuple(-(-n // w) * w for n, w in zip(size, window, strict=True))
    mask = shift_mask(size, windows)
    # Of a padded map every place is shown, so that None stands for none.
    for shown, allowed in zip(places(padded, windows), mask, strict=True):
        inside = list(itertools.product(range(window[0]), range(window[1])))
        for (one, here), (other, there) in itertools.product(enumerate(inside), repeat=2):
            before = [a - b for a, b in zip(shown[one], shown[other], strict=True)]
            now = [a - b for a, b in zip(here, there, strict=True)]
            assert allowed[one, other] == (0 if before == now else MASKED)


@pytest.mark.parametrize(("window", "table"), [((3, 3), (3, 3)), ((2, 4), (2, 4)), ((2, 3), (4, 5)), ((1, 1), (3, 3))])
def test_the_table_has_one_row_for_each_offset(window, table):
    index = relative_positions(window, table)
    offsets = {
        offset: row
        for row, offset in enumerate(
            itertools.product(range(1 - table[0], table[0]), range(1 - table[1], table[1])),
        )
    }
    inside = list(itertools.product(range(window[0]), range(window[1])))
    expected = [[offsets[(y - v, x - u)] for v, u in inside] for y, x in inside]
    assert index.tolist() == expected


@pytest.mark.parametrize(
    ("size", "borders", "expected"),
    [
        ((14, 21), "paper", Windows((7, 7), (3, 3))),
        ((7, 7), "paper", Windows((7, 7), (0, 0))),
        ((5, 5), "paper", Windows((5, 5), (0, 0))),
        ((7, 14), "paper", Windows((7, 7), (0, 0))),  # one side of a single window is enough
        ((4, 16), "paper", Windows((4, 4), (0, 0))),
        ((14, 21), "timm", Windows((7, 7), (3, 3), pad_first=False)),
        ((7, 14), "timm", Windows((7, 7), (0, 3), pad_first=False)),
        ((4, 16), "timm", Windows((4, 7), (0, 3), pad_first=False)),
        ((14, 21), "torchvision", Windows((7, 7), (3, 3))),
        ((7, 14), "torchvision", Windows((7, 7), (0, 3))),
        ((4, 16), "torchvision", Windows((7, 7), (0, 3))),
    ],
)
def test_windows_that_a_map_leaves(size, borders, expected):
    assert fit(size, (7, 7), borders) == expected


def test_a_table_is_resampled_as_one_picture_a_head():
    table = torch.randn(5 * 7, 2)
    resampled = resample_table(table, (3, 4), (5, 3))
    assert resampled.shape == (9 * 5, 2)
    for head in range(2):
        picture = torch.stack([table[row * 7 : (row + 1) * 7, head] for row in range(5)])
        expected = F.interpolate(picture[None, None], (9, 5), mode="bicubic")[0, 0]
        torch.testing.assert_close(resampled[:, head].reshape(9, 5), expected, atol=1e-6, rtol=0)


def test_a_table_for_the_same_window_stays_as_it_is():
    table = torch.randn(25, 3)
    assert resample_table(table, (3, 3), (3, 3)) is table


def test_resampling_keeps_the_dtype_and_the_middle():
    table = torch.randn(25, 3, dtype=torch.bfloat16)
    resampled = resample_table(table, (3, 3), (6, 6))
    assert resampled.dtype == torch.bfloat16
    # Both have an odd number of rows: a place is in the middle of each, and shows the same there.
    assert torch.equal(resampled[60], table[12])
