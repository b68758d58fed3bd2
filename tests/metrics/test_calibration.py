from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.calibration import calibration_curve

from vitrail.metrics.calibration import (
    each_decision,
    expected_calibration_error,
    fit_temperature,
    reliability,
    top_class,
)


def likelihood_loss(logits: NDArray, targets: NDArray, temperature: float) -> float:
    """Negative log-likelihood by torch: independent of the package."""
    scaled = torch.from_numpy(logits / temperature)
    return float(torch.nn.functional.cross_entropy(scaled, torch.from_numpy(targets)))


@settings(deadline=None, max_examples=60)
@given(
    decisions=st.lists(st.tuples(st.integers(0, 64), st.booleans()), min_size=1, max_size=40),
    bins=st.sampled_from([1, 2, 8, 16]),  # so that multiples of 1/64 fall exactly on edges
)
def test_reliability_equals_brute_force(decisions: list[tuple[int, bool]], bins: int) -> None:
    confidences = np.array([sixty_fourths / 64 for sixty_fourths, _ in decisions])
    correct = np.array([right for _, right in decisions])
    table = reliability(confidences, correct, bins)
    error = 0.0
    for m in range(bins):
        low, high = m / bins, (m + 1) / bins
        inside = [(c, right) for c, right in zip(confidences, correct, strict=True) if low < c <= high or (m == 0 == c)]
        assert table.counts[m] == len(inside)
        if inside:
            mean_confidence = math.fsum(c for c, _ in inside) / len(inside)
            accuracy = sum(right for _, right in inside) / len(inside)
            assert table.confidence[m] == pytest.approx(mean_confidence, abs=1e-12)
            assert table.accuracy[m] == pytest.approx(accuracy, abs=1e-12)
            error += len(inside) / len(decisions) * abs(accuracy - mean_confidence)
        else:
            assert table.confidence[m] == table.accuracy[m] == 0
    assert expected_calibration_error(table) == pytest.approx(error, abs=1e-12)


@pytest.mark.parametrize("bins", [5, 10, 15])
def test_reliability_equals_scikit_learn(bins: int) -> None:
    chance = np.random.default_rng(bins)
    confidences = chance.random(500)
    correct = chance.random(500) < confidences**2
    table = reliability(confidences, correct, bins)
    accuracy, confidence = calibration_curve(correct, confidences, n_bins=bins)
    np.testing.assert_allclose(table.accuracy[table.counts > 0], accuracy, atol=1e-12)
    np.testing.assert_allclose(table.confidence[table.counts > 0], confidence, atol=1e-12)


def test_calibration_error_by_hand() -> None:
    """Two bins: (0.6 + 0.8) / 2 = 0.7 sure and half right; 0.3 sure and always right: 2/3 of 0.2 plus 1/3 of 0.7."""
    table = reliability(np.array([0.6, 0.8, 0.3]), np.array([True, False, True]), bins=2)
    assert table.counts.tolist() == [1, 2]
    assert expected_calibration_error(table) == pytest.approx(2 / 3 * 0.2 + 1 / 3 * 0.7)


def test_fifteen_bins_unless_told() -> None:
    assert len(reliability(np.array([1.0]), np.array([True])).counts) == 15


def test_no_decision_has_no_error() -> None:
    assert expected_calibration_error(reliability(np.array([]), np.array([], bool))) == 0


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 20), K=st.integers(2, 6), scale=st.sampled_from([0.0, 1, 300]))
def test_confidences_equal_torch(seed: int, n: int, K: int, scale: float) -> None:
    chance = np.random.default_rng(seed)
    logits = (scale * chance.normal(size=(n, K))).astype(np.float32)
    targets = chance.integers(0, K, n)
    confidences, correct = top_class(logits, targets)
    top = torch.from_numpy(logits).double().softmax(1).max(1)
    np.testing.assert_allclose(confidences, top.values, atol=1e-6)
    assert correct.tolist() == (logits.argmax(1) == targets).tolist()

    many = chance.random((n, K)) < 0.5
    confidences, correct = each_decision(logits, many)
    p = torch.from_numpy(logits).double().sigmoid().numpy().ravel()
    np.testing.assert_allclose(confidences, np.maximum(p, 1 - p), atol=1e-6)
    assert correct.tolist() == ((p >= 0.5) == many.ravel()).tolist()


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 2**32 - 1), K=st.integers(2, 8), scale=st.sampled_from([0.3, 1.0, 4.0, 10.0]))
def test_temperature_equals_a_dense_search(seed: int, K: int, scale: float) -> None:
    chance = np.random.default_rng(seed)
    logits = chance.normal(size=(200, K))
    cumulated = np.exp(logits).cumsum(1)
    targets = (cumulated < chance.random((200, 1)) * cumulated[:, -1:]).sum(1)  # drawn from softmax(logits)
    logits *= scale
    grid = np.exp(np.linspace(math.log(0.01), math.log(100), 2000))
    losses = [likelihood_loss(logits, targets, temperature) for temperature in grid]
    fitted = fit_temperature(logits, targets)
    best = int(np.argmin(losses))
    assert grid[best - 1] < fitted < grid[best + 1]
    assert likelihood_loss(logits, targets, fitted) <= losses[best] + 1e-12


def test_temperature_of_two_classes_in_closed_form() -> None:
    """With the same margin d everywhere and the share a right, sigmoid(d / T) = a: T = d / log(a / (1 - a))."""
    logits = np.tile(np.float32([4, 0]), (4, 1))
    assert fit_temperature(logits, np.array([0, 0, 1, 0])) == pytest.approx(4 / math.log(3), rel=1e-6)


def test_temperature_grows_with_the_logits() -> None:
    chance = np.random.default_rng(3)
    logits, targets = chance.normal(size=(300, 5)), chance.integers(0, 5, 300)
    targets[:150] = logits[:150].argmax(1)
    assert fit_temperature(7 * logits, targets) == pytest.approx(7 * fit_temperature(logits, targets), rel=1e-6)


@pytest.mark.parametrize(
    ("logits", "targets"),
    [
        pytest.param([[2, 1, 0], [0, 3, 1]], [0, 1], id="all right"),
        pytest.param([[90, 0, 0], [0, 90, 0]], [0, 1], id="all right, by far"),
        pytest.param([[2, 1, 0]], [0], id="one image, right"),
        pytest.param([[2, 1, 0]], [2], id="one image, wrong"),
        pytest.param([[2, 1, 0], [0, 3, 1]], [2, 0], id="worse than chance"),
        pytest.param([[1, 1, 1], [5, 5, 5]], [0, 2], id="constant"),
        pytest.param([[1e30, 0, -1e30]], [0], id="huge"),
    ],
)
def test_temperature_stays_1_where_the_data_do_not_tell(logits: list[list[float]], targets: list[int]) -> None:
    assert fit_temperature(np.float32(logits), np.array(targets)) == 1.0


def test_temperature_survives_huge_logits() -> None:
    """With one of four wrong by d the best T is d / log 3: for 1000 beyond what is looked for, for 100 not."""
    targets = np.array([0, 0, 1, 0])
    assert fit_temperature(np.tile(np.float32([1000, 0]), (4, 1)), targets) == 1.0
    assert fit_temperature(np.tile(np.float32([100, 0]), (4, 1)), targets) == pytest.approx(100 / math.log(3), rel=1e-6)
