from __future__ import annotations

import json
import math
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn import metrics as reference

from vitrail.errors import DataError, VitrailError
from vitrail.metrics.classification import (
    ClassificationMetric,
    confusion_matrix,
    macro_f1,
    most_confused,
    negative_log_likelihood,
    per_class,
    precision_recall_f1,
    top_k_accuracy,
)


@st.composite
def answers(draw: st.DrawFn, least_classes: int = 2) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Few images and classes, and few distinct logits: ties, absent classes and a single image are common."""
    n, K = draw(st.integers(1, 12)), draw(st.integers(least_classes, 6))
    rows = draw(st.lists(st.lists(st.integers(-2, 2), min_size=K, max_size=K), min_size=n, max_size=n))
    targets = draw(st.lists(st.integers(0, K - 1), min_size=n, max_size=n))
    return np.array(rows, np.float32), np.array(targets, np.int64)


def one_hot(targets: NDArray[np.int64], K: int) -> torch.Tensor:
    return torch.nn.functional.one_hot(torch.from_numpy(targets), K).float()


@settings(deadline=None, max_examples=60)
@given(answers(), st.integers(1, 6))
def test_top_k_equals_sorting(data: tuple[NDArray, NDArray], k: int) -> None:
    logits, targets = data
    ranked = [sorted(range(len(row)), key=lambda c, row=row: (-row[c], c)) for row in logits]
    hits = [target in order[:k] for target, order in zip(targets, ranked, strict=True)]
    assert top_k_accuracy(logits, targets, k) == sum(hits) / len(hits)


@pytest.mark.parametrize("k", [1, 2, 5])
def test_top_k_equals_scikit_learn_without_ties(k: int) -> None:
    chance = np.random.default_rng(k)
    logits, targets = chance.normal(size=(300, 7)), chance.integers(0, 7, 300)
    expected = reference.top_k_accuracy_score(targets, logits, k=k, labels=range(7))
    assert top_k_accuracy(logits, targets, k) == pytest.approx(expected, abs=1e-12)


@settings(deadline=None, max_examples=60)
@given(answers())
def test_confusion_and_scores_equal_scikit_learn(data: tuple[NDArray, NDArray]) -> None:
    logits, targets = data
    labels = list(range(logits.shape[1]))
    predicted = logits.argmax(1)
    confusion = confusion_matrix(logits, targets)
    np.testing.assert_array_equal(confusion, reference.confusion_matrix(targets, predicted, labels=labels))
    scores = per_class(confusion)
    expected = reference.precision_recall_fscore_support(targets, predicted, labels=labels, zero_division=0)
    for ours, theirs in zip(scores, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-12)
    present = sorted(set(targets.tolist()))
    macro = reference.f1_score(targets, predicted, labels=present, average="macro", zero_division=0)
    assert macro_f1(scores) == pytest.approx(macro, abs=1e-12)
    assert top_k_accuracy(logits, targets, 1) == confusion.trace() / confusion.sum()


def test_what_would_be_zero_by_zero_is_zero() -> None:
    """Class 0 is right, class 1 never predicted, class 2 never true, class 3 neither."""
    scores = per_class(np.array([[3, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]]))
    assert [column.tolist() for column in scores] == [[1, 0, 0, 0], [1, 0, 0, 0], [1, 0, 0, 0], [3, 1, 0, 0]]
    assert macro_f1(scores) == 0.5  # of the two classes that occur


def test_macro_f1_of_nothing_is_zero() -> None:
    nothing = np.zeros(3, np.int64)
    assert macro_f1(precision_recall_f1(nothing, nothing, nothing)) == 0


@settings(deadline=None, max_examples=60)
@given(answers(least_classes=3))
def test_likelihood_equals_scikit_learn(data: tuple[NDArray, NDArray]) -> None:
    logits, targets = data
    odds = np.exp(logits.astype(np.float64))
    expected = reference.log_loss(targets, odds / odds.sum(1, keepdims=True), labels=range(logits.shape[1]))
    assert negative_log_likelihood(logits, targets) == pytest.approx(expected, abs=1e-5)
    assert negative_log_likelihood(logits.astype(np.float64), targets) == pytest.approx(expected, abs=1e-12)


def test_likelihood_of_extreme_logits() -> None:
    """log(1 + exp(-10000)) is 0, so a wrong answer costs the difference of the logits."""
    logits = np.float32([[10000, 0], [0, 10000]])
    assert negative_log_likelihood(logits, np.array([1, 1])) == 5000
    assert negative_log_likelihood(np.full((1, 8), -1e30, np.float32), np.array([3])) == pytest.approx(math.log(8))


@settings(deadline=None, max_examples=40)
@given(st.integers(2, 5).flatmap(lambda K: st.lists(st.integers(0, 3), min_size=K * K, max_size=K * K)))
def test_most_confused_equals_sorting(cells: list[int]) -> None:
    K = math.isqrt(len(cells))
    confusion = np.array(cells).reshape(K, K)
    mistakes = [(i, j, int(confusion[i, j])) for i in range(K) for j in range(K) if i != j and confusion[i, j]]
    expected = sorted(mistakes, key=lambda mistake: (-mistake[2], mistake[0], mistake[1]))
    assert most_confused(confusion, 4) == expected[:4]
    assert most_confused(confusion, 100) == expected


def test_metric_by_hand() -> None:
    """The softmax of (ln 2, 0, 0) is (1/2, 1/4, 1/4), that of (ln 8, 0, 0) is (4/5, 1/10, 1/10)."""
    metric = ClassificationMetric(["ant", "bee", "cat"])
    sure, unsure = math.log(8), math.log(2)
    logits = torch.tensor([[unsure, 0, 0], [0, unsure, 0], [sure, 0, 0], [sure, 0, 0], [sure, 0, 0]])
    metric.update(logits, one_hot(np.array([0, 1, 1, 0, 0]), 3), range(5))
    result = metric.compute()
    assert result["images"] == 5
    assert result["top1"] == 0.8
    assert result["top5"] == 1.0
    assert result["confusion"] == [[3, 0, 0], [1, 1, 0], [0, 0, 0]]
    assert result["per_class"] == [
        {"label": "ant", "precision": 0.75, "recall": 1.0, "f1": pytest.approx(6 / 7), "images": 3},
        {"label": "bee", "precision": 1.0, "recall": 0.5, "f1": pytest.approx(2 / 3), "images": 2},
        {"label": "cat", "precision": 0.0, "recall": 0.0, "f1": 0.0, "images": 0},
    ]
    assert result["macro_f1"] == pytest.approx((6 / 7 + 2 / 3) / 2)
    assert result["nll"] == pytest.approx((2 * math.log(2) + math.log(10) + 2 * math.log(5 / 4)) / 5)
    # Two images 50 % sure and both right, three 80 % sure and two of them right.
    assert result["ece"] == pytest.approx(2 / 5 * 0.5 + 3 / 5 * (0.8 - 2 / 3))
    json.dumps(result, allow_nan=False)


def test_top5_is_of_five() -> None:
    metric = ClassificationMetric([str(c) for c in range(7)])
    metric.update(torch.arange(7.0).expand(7, 7), torch.eye(7), range(7))
    assert metric.compute()["top5"] == pytest.approx(5 / 7)


@settings(deadline=None, max_examples=40)
@given(answers(), st.data())
def test_shares_do_not_matter(data: tuple[NDArray, NDArray], more: st.DataObject) -> None:
    """Any order, any batches, any processes, and images that came twice give the very same figures."""
    logits, targets = data
    n, K = logits.shape
    classes = [f"class {c}" for c in range(K)]
    whole = ClassificationMetric(classes)
    whole.update(torch.from_numpy(logits), one_hot(targets, K), range(n))

    order = more.draw(st.permutations(range(n))) + more.draw(st.lists(st.integers(0, n - 1), max_size=4))
    processes = [ClassificationMetric(classes) for _ in range(3)]
    while order:
        size = more.draw(st.integers(1, len(order)))
        batch, order = order[:size], order[size:]
        process = processes[more.draw(st.integers(0, 2))]
        process.update(torch.from_numpy(logits[batch]), one_hot(targets[batch], K), batch)
    gathered = pickle.loads(pickle.dumps(processes))  # as processes send them to one another
    processes[0].merge(gathered)

    assert processes[0].compute() == whole.compute()
    np.testing.assert_array_equal(processes[0].logits, logits)
    np.testing.assert_array_equal(processes[0].targets, targets)


def test_merging_with_itself_changes_nothing() -> None:
    metric = ClassificationMetric(["a", "b"])
    metric.update(torch.eye(2), torch.eye(2), [4, 2])
    metric.merge([metric, ClassificationMetric(["a", "b"])])
    assert metric.compute()["images"] == 2
    assert metric.targets.tolist() == [1, 0]


def test_update_keeps_its_own_copy_in_float32() -> None:
    metric = ClassificationMetric(["a", "b"])
    logits = torch.eye(2, requires_grad=True)
    metric.update(logits, torch.eye(2), [0, 1])
    metric.update(torch.eye(2, dtype=torch.bfloat16), torch.eye(2), [2, 3])
    with torch.no_grad():
        logits.zero_()
    assert metric.logits.dtype == np.float32
    assert metric.logits.tolist() == [[1, 0], [0, 1], [1, 0], [0, 1]]


def test_nothing_to_evaluate() -> None:
    metric = ClassificationMetric(["a", "b"])
    with pytest.raises(DataError, match="no image with a label"):
        metric.compute()


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_answers_that_are_not_finite_are_named(bad: float) -> None:
    metric = ClassificationMetric(["a", "b"])
    with pytest.raises(VitrailError, match="image 17 is not finite"):
        metric.update(torch.tensor([[0.0, 1.0], [0.0, bad]]), torch.eye(2), [3, 17])


def test_lengths_must_match() -> None:
    metric = ClassificationMetric(["a", "b"])
    with pytest.raises(ValueError, match="do not match"):
        metric.update(torch.eye(2), torch.eye(2), [1])
