from __future__ import annotations

import pytest

from vitrail.proofs.proof import Proof


@pytest.mark.parametrize(
    ("measured", "baseline", "bar", "better", "passed"),
    [
        (0.90, 0.50, 0.80, "higher", True),
        (0.80, 0.50, 0.80, "higher", True),  # the bar itself is enough
        (0.79, 0.50, 0.80, "higher", False),
        (0.90, 0.95, 0.80, "higher", False),  # above the bar, but the baseline is better
        (0.90, 0.90, 0.80, "higher", False),  # a baseline must be beaten
        (1.20, 1.50, 1.30, "lower", True),
        (1.30, 1.50, 1.30, "lower", True),
        (1.40, 1.50, 1.30, "lower", False),
        (1.20, 1.10, 1.30, "lower", False),
        (1.20, 1.20, 1.30, "lower", False),
        (None, 0.50, 0.80, "higher", None),
        (0.90, None, 0.80, "higher", None),
    ],
)
def test_passed(measured: float | None, baseline: float | None, bar: float, better: str, passed: bool | None) -> None:
    assert Proof("name", "what", measured, baseline, bar, better).passed is passed
