"""The fitted law against synthetic data, whose law is known, and against SciPy's search over all three parameters."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vitrail.metrics.power_law import PowerLaw, fit, meet

IMAGES = [562, 1125, 2250, 4500, 9000]


@settings(max_examples=60, deadline=None)
@given(st.floats(0.5, 20), st.floats(0.1, 1.5), st.floats(0, 0.3))
def test_exact_data_give_their_own_law(a, b, c):
    errors = a * np.asarray(IMAGES, float) ** -b + c
    law = fit(IMAGES, errors)
    assert law is not None
    np.testing.assert_allclose(law(IMAGES), errors, rtol=1e-5)
    assert law.b == pytest.approx(b, rel=2e-2, abs=1e-3)


@pytest.mark.parametrize("seed", range(5))
def test_no_other_law_is_nearer_to_noisy_data(seed):
    optimize = pytest.importorskip("scipy.optimize")
    rng = np.random.default_rng(seed)
    images = np.repeat(IMAGES, 3)
    errors = 12 * images**-0.5 + 0.1 + rng.normal(0, 0.01, images.shape)
    law = fit(images, errors)
    assert law is not None
    squares = ((law(images) - errors) ** 2).sum()
    for guess in ([12, 0.5, 0.1], [1, 0.1, 0], [100, 1, 0.2], [2, 0.2, 0.05]):
        found, _ = optimize.curve_fit(
            lambda n, a, b, c: a * n**-b + c, images, errors, guess, bounds=(0, [1e6, 5, 1]), max_nfev=20_000
        )
        assert squares <= ((found[0] * images ** -found[1] + found[2] - errors) ** 2).sum() * (1 + 1e-6)


def test_what_does_not_fall_has_no_power():
    law = fit(IMAGES, [0.2, 0.25, 0.3, 0.35, 0.4])
    assert law is not None
    assert law.a == 0
    assert law(1000) == pytest.approx(0.3)


def test_too_few_sizes_have_no_law():
    assert fit([100, 200, 200, 100], [0.5, 0.4, 0.41, 0.52]) is None


def test_where_two_laws_meet():
    slow, fast = PowerLaw(1.0, 0.2, 0.0), PowerLaw(4.0, 0.5, 0.0)  # 1 n^-.2 = 4 n^-.5 where n^.3 = 4
    assert meet(slow, fast, 10, 1e6) == pytest.approx(4 ** (1 / 0.3), rel=1e-6)
    assert meet(fast, slow, 10, 1e6) == pytest.approx(4 ** (1 / 0.3), rel=1e-6)
    assert meet(slow, fast, 1000, 1e6) is None


def test_in_words():
    assert str(PowerLaw(3.14159, 0.5, 0.1)) == "3.14 · n^-0.5 + 0.1"
    assert str(PowerLaw(3.14159, 0.5, 0.0)) == "3.14 · n^-0.5"
