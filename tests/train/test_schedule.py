"""The learning rate's course against a table written out, its limits, and its shape."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vitrail.train.schedule import warmup_cosine

SQRT_HALF = math.sqrt(0.5)


def test_a_table_written_out() -> None:
    """Four steps up to 1, then half a cosine over eight steps; at eighths of π its values are known."""
    cosines = [1, None, SQRT_HALF, None, 0, None, -SQRT_HALF, None]
    course = [warmup_cosine(step, total=12, warmup=4, floor=0.2) for step in range(12)]
    assert course[:4] == [0.25, 0.5, 0.75, 1.0]
    for factor, cosine in zip(course[4:], cosines, strict=True):
        if cosine is not None:
            assert factor == pytest.approx(0.2 + 0.8 * (1 + cosine) / 2, abs=1e-15)


def test_it_ends_just_above_a_hundredth() -> None:
    assert warmup_cosine(1000, 1000, 50) == pytest.approx(0.01)
    assert 0.01 < warmup_cosine(999, 1000, 50) < 0.01001
    assert warmup_cosine(5000, 1000, 50) == pytest.approx(0.01)  # and stays there


def test_without_warm_up_it_begins_at_the_top() -> None:
    assert warmup_cosine(0, 10, 0) == 1.0
    assert warmup_cosine(0, 1, 0) == 1.0
    assert warmup_cosine(5, 10, 0, floor=0.0) == pytest.approx(0.5)


def test_it_may_be_all_warm_up() -> None:
    assert [warmup_cosine(step, 4, 4) for step in range(4)] == [0.25, 0.5, 0.75, 1.0]
    assert [warmup_cosine(step, 2, 8) for step in range(2)] == [0.125, 0.25]


@settings(deadline=None, max_examples=60)
@given(total=st.integers(1, 300), warmup=st.integers(0, 300), floor=st.floats(0, 1))
def test_it_rises_to_the_top_and_then_only_falls(total: int, warmup: int, floor: float) -> None:
    course = [warmup_cosine(step, total, warmup, floor) for step in range(total)]
    up, down = course[:warmup], course[warmup:]
    assert all(0 < factor <= 1 for factor in up)
    assert up == sorted(up)
    assert down == sorted(down, reverse=True)
    assert all(floor - 1e-12 <= factor <= 1 + 1e-12 for factor in down)
    if down:
        assert down[0] == pytest.approx(1)
