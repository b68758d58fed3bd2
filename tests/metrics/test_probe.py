"""Probes against brute force and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from vitrail.metrics import probe
from vitrail.metrics.probe import STRENGTHS, knn_accuracy, knn_logits, linear_probe


def clouds(count: int, seed: int, classes: int = 4, width: int = 6) -> tuple[Tensor, Tensor]:
    """Points about one centre a class, overlapping; the axes have very different scales and means."""
    centres = torch.randn(classes, width, generator=torch.Generator().manual_seed(99))
    random = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (count,), generator=random)
    points = centres[labels] + 1.2 * torch.randn(count, width, generator=random)
    return points * torch.logspace(-1, 1, width) + torch.arange(width), labels


def test_neighbours_vote_as_counted_by_hand():
    features, labels = clouds(40, seed=0)
    queries, _ = clouds(7, seed=1)
    logits = knn_logits(features, labels, queries, 5, neighbours=9, temperature=0.1)
    assert logits.shape == (7, 5)  # a class that no image has gets no vote
    for query, row in zip(queries.double(), logits.double(), strict=True):
        similar = [float(query @ f / query.norm() / f.norm()) for f in features.double()]
        votes = np.zeros(5)
        for index in sorted(range(40), key=lambda i: -similar[i])[:9]:
            votes[labels[index]] += np.exp(similar[index] / 0.1)
        np.testing.assert_allclose(row.exp().numpy(), votes / votes.sum(), atol=1e-5)


def test_neighbours_are_those_of_scikit_learn():
    neighbors = pytest.importorskip("sklearn.neighbors")
    features, labels = clouds(300, seed=0)
    queries, _ = clouds(200, seed=1)
    theirs = neighbors.KNeighborsClassifier(
        20, metric="cosine", algorithm="brute", weights=lambda distance: np.exp((1 - distance) / 0.07)
    )
    shares = theirs.fit(features.double().numpy(), labels.numpy()).predict_proba(queries.double().numpy())
    np.testing.assert_allclose(knn_logits(features, labels, queries, 4).exp().numpy(), shares, atol=1e-4)


def test_queries_in_parts_are_answered_as_all_at_once(monkeypatch):
    features, labels = clouds(50, seed=0)
    queries, _ = clouds(23, seed=1)
    whole = knn_logits(features, labels, queries, 4)
    monkeypatch.setattr(probe, "AT_ONCE", 5)
    torch.testing.assert_close(knn_logits(features, labels, queries, 4), whole)


def test_there_may_be_fewer_images_than_neighbours():
    features, labels = clouds(3, seed=0)
    assert torch.equal(knn_logits(features, labels, features, 4, temperature=0.01).argmax(dim=1), labels)


@pytest.mark.parametrize("strength", [1e-3, 1e-1])
def test_the_linear_probe_is_the_logistic_regression_of_scikit_learn(strength):
    """C there is 1 / (strength · N), for its loss is a sum; features standardised in both."""
    linear_model = pytest.importorskip("sklearn.linear_model")
    preprocessing = pytest.importorskip("sklearn.preprocessing")
    features, labels = clouds(200, seed=0)
    weight, bias = linear_probe(features, labels, clouds(20, seed=1), 4, strengths=(strength,))
    scaler = preprocessing.StandardScaler().fit(features.double().numpy())
    theirs = linear_model.LogisticRegression(C=1 / (strength * 200), tol=1e-10, max_iter=10_000)
    theirs.fit(scaler.transform(features.double().numpy()), labels.numpy())
    queries, _ = clouds(100, seed=2)
    ours = (queries @ weight.T + bias).softmax(dim=1)
    expected = theirs.predict_proba(scaler.transform(queries.double().numpy()))
    np.testing.assert_allclose(ours.numpy(), expected, atol=2e-3)


def test_validation_chooses_the_strength():
    """With few points in many dimensions little decay overfits; what is chosen is the best of all on validation."""
    features, labels = clouds(24, seed=0, width=30)
    validation = clouds(400, seed=1, width=30)

    def accuracy(strengths):
        weight, bias = linear_probe(features, labels, validation, 4, strengths)
        return ((validation[0] @ weight.T + bias).argmax(dim=1) == validation[1]).float().mean().item()

    each = [accuracy((strength,)) for strength in STRENGTHS]
    assert len(set(each)) > 1
    assert accuracy(STRENGTHS) == max(each)


def test_a_feature_that_never_changes_does_no_harm():
    features, labels = clouds(100, seed=0)
    features[:, 2] = 3.0
    weight, bias = linear_probe(features, labels, (features, labels), 4)
    assert torch.isfinite(weight).all()
    assert torch.isfinite(bias).all()
    assert ((features @ weight.T + bias).argmax(dim=1) == labels).float().mean() > 0.6


def test_each_half_is_classified_by_the_other():
    random = torch.Generator().manual_seed(0)
    labels = torch.arange(30) % 3
    features = torch.randn(30, 4, generator=random) + 2 * torch.nn.functional.one_hot(labels, 4)
    right = 0
    for mine, others in ((range(0, 30, 2), range(1, 30, 2)), (range(1, 30, 2), range(0, 30, 2))):
        for query in mine:
            logits = knn_logits(features[list(others)], labels[list(others)], features[query : query + 1], 3)
            right += int(logits.argmax() == labels[query])
    assert 10 < right < 30
    assert knn_accuracy(features, labels, 3) == right / 30


def test_an_image_alone_has_no_neighbour():
    assert knn_accuracy(torch.ones(1, 4), torch.zeros(1, dtype=torch.int64), 2) == 0
    assert knn_accuracy(torch.ones(3, 4), torch.zeros(3, dtype=torch.int64), 2) == 1
