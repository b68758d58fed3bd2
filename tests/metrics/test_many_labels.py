from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn import metrics as reference

from vitrail.errors import DataError
from vitrail.metrics.many_labels import (
    ManyLabelsMetric,
    average_precision,
    binary_negative_log_likelihood,
    micro_f1,
    per_label,
)


@st.composite
def answers(draw: st.DrawFn) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Few distinct logits, 0 among them, so that ties and probabilities of exactly 0.5 are common."""
    n, K = draw(st.integers(1, 12)), draw(st.integers(2, 5))
    logits = draw(st.lists(st.integers(-2, 2), min_size=n * K, max_size=n * K))
    targets = draw(st.lists(st.booleans(), min_size=n * K, max_size=n * K))
    return np.array(logits, np.float32).reshape(n, K), np.array(targets).reshape(n, K)


def metric_of(logits: NDArray, targets: NDArray) -> ManyLabelsMetric:
    metric = ManyLabelsMetric([f"label {c}" for c in range(logits.shape[1])])
    metric.update(torch.from_numpy(logits), torch.from_numpy(targets).float(), range(len(logits)))
    return metric


@settings(deadline=None, max_examples=80)
@given(st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=1, max_size=20))
def test_average_precision_equals_scikit_learn_and_its_definition(pairs: list[tuple[int, bool]]) -> None:
    scores = np.float32([score for score, _ in pairs])
    positive = np.array([truth for _, truth in pairs])
    result = average_precision(scores, positive)
    if not positive.any():
        assert result == 0
        return
    assert result == pytest.approx(reference.average_precision_score(positive, scores), abs=1e-12)
    area = recall = 0.0
    for threshold in sorted(set(scores.tolist()), reverse=True):
        chosen = positive[scores >= threshold]
        area += (chosen.sum() / positive.sum() - recall) * chosen.mean()
        recall = chosen.sum() / positive.sum()
    assert result == pytest.approx(area, abs=1e-12)


def test_average_precision_by_hand() -> None:
    """Ranked + - +: precision 1 at recall 1/2, then 2/3 at recall 1."""
    assert average_precision(np.array([0.9, 0.8, 0.7]), np.array([True, False, True])) == pytest.approx(5 / 6)
    assert average_precision(np.zeros(4), np.array([True, False, False, False])) == 0.25  # all tied: the share


@settings(deadline=None, max_examples=60)
@given(answers())
def test_f1_equals_scikit_learn(data: tuple[NDArray, NDArray]) -> None:
    logits, targets = data
    predicted = 1 / (1 + np.exp(-logits.astype(np.float64))) >= 0.5
    expected = reference.precision_recall_fscore_support(targets, predicted, average=None, zero_division=0)
    for ours, theirs in zip(per_label(logits, targets), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-12)
    micro = reference.f1_score(targets, predicted, average="micro", zero_division=0)
    assert micro_f1(logits, targets) == pytest.approx(micro, abs=1e-12)


@settings(deadline=None, max_examples=60)
@given(answers())
def test_likelihood_equals_scikit_learn(data: tuple[NDArray, NDArray]) -> None:
    logits, targets = data
    p = 1 / (1 + np.exp(-logits.astype(np.float64)))
    expected = reference.log_loss(targets.ravel(), p.ravel(), labels=[False, True])
    assert binary_negative_log_likelihood(logits, targets) == pytest.approx(expected, abs=1e-6)


def test_likelihood_of_extreme_logits() -> None:
    assert binary_negative_log_likelihood(np.float32([[1000, -1000]]), np.array([[True, True]])) == 500


@settings(deadline=None, max_examples=40)
@given(answers())
def test_means_are_over_the_labels_that_occur(data: tuple[NDArray, NDArray]) -> None:
    logits, targets = data
    result = metric_of(logits, targets).compute()
    present = np.flatnonzero(targets.any(0))
    predicted = logits >= 0
    if len(present):
        precisions = [reference.average_precision_score(targets[:, c], logits[:, c]) for c in present]
        f1 = [reference.f1_score(targets[:, c], predicted[:, c], zero_division=0) for c in present]
        assert result["map"] == pytest.approx(np.mean(precisions), abs=1e-12)
        assert result["macro_f1"] == pytest.approx(np.mean(f1), abs=1e-12)
    else:
        assert result["map"] == result["macro_f1"] == 0
    json.dumps(result, allow_nan=False)


def test_metric_by_hand() -> None:
    """Two images and two labels; sigmoid(ln 3) = 3/4, and the last decision, no with 3/4, is wrong."""
    odds = math.log(3)
    result = metric_of(np.float32([[odds, odds], [-odds, -odds]]), np.array([[True, True], [False, True]])).compute()
    assert set(result) == {"map", "macro_f1", "micro_f1", "nll", "ece", "images", "per_class"}
    assert result["images"] == 2
    assert result["map"] == 1.0
    assert result["macro_f1"] == pytest.approx((1 + 2 / 3) / 2)
    assert result["micro_f1"] == pytest.approx(4 / 5)
    assert result["nll"] == pytest.approx((3 * math.log(4 / 3) + math.log(4)) / 4)
    assert result["ece"] == pytest.approx(0.0, abs=1e-6)  # 75 % sure, three of four right
    assert result["per_class"] == [
        {"label": "label 0", "precision": 1.0, "recall": 1.0, "f1": 1.0, "images": 1, "average_precision": 1.0},
        {
            "label": "label 1",
            "precision": 1.0,
            "recall": 0.5,
            "f1": pytest.approx(2 / 3),
            "images": 2,
            "average_precision": 1.0,
        },
    ]


@settings(deadline=None, max_examples=25)
@given(answers(), st.data())
def test_shares_do_not_matter(data: tuple[NDArray, NDArray], more: st.DataObject) -> None:
    logits, targets = data
    n, K = logits.shape
    order = more.draw(st.permutations(range(n))) + more.draw(st.lists(st.integers(0, n - 1), max_size=4))
    cut = more.draw(st.integers(0, len(order)))
    processes = [ManyLabelsMetric([f"label {c}" for c in range(K)]) for _ in range(2)]
    for process, numbers in zip(processes, (order[:cut], order[cut:]), strict=True):
        process.update(torch.from_numpy(logits[numbers]), torch.from_numpy(targets[numbers]).float(), numbers)
    processes[1].merge(processes[:1])
    assert processes[1].compute() == metric_of(logits, targets).compute()
    np.testing.assert_array_equal(processes[1].targets, targets)


def test_nothing_to_evaluate() -> None:
    with pytest.raises(DataError, match="no image with a label"):
        ManyLabelsMetric(["a"]).compute()
