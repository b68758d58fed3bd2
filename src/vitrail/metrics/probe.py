"""How much frozen features know of the classes: nearest neighbours, and a linear classifier on them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # of the linear probe's weight decay; validation chooses
AT_ONCE = 256  # queries that are compared with all training images, to bound the memory


def knn_logits(
    features: Tensor, labels: Tensor, queries: Tensor, classes: int, *, neighbours: int = 20, temperature: float = 0.07
) -> Tensor:
    """Log-shares of a weighted vote of the most similar training features, ``(Q, classes)``.

    A neighbour at cosine similarity s has exp(s / ``temperature``) votes (Wu et al. 2018, section 3.4).

    Args:
        features, labels: of the training images, ``(N, D)`` float and ``(N,)`` int64.
        queries: of the images to classify, ``(Q, D)`` float.
    """
    known = F.normalize(features, dim=1)
    logits = []
    for some in queries.split(AT_ONCE):
        similarity, nearest = (F.normalize(some, dim=1) @ known.T).topk(min(neighbours, len(known)), dim=1)
        votes = (similarity / temperature).softmax(dim=1)
        shares = votes.new_zeros(len(some), classes).scatter_add_(1, labels[nearest], votes)
        logits.append(shares.clamp_min(1e-12).log())
    return torch.cat(logits)


def knn_accuracy(features: Tensor, labels: Tensor, classes: int) -> float:
    """The accuracy of `knn_logits` on images ``(N, D)`` and ``(N,)`` alone: each half is classified by the other.

    Every other image belongs to one half, so that both have all classes where the images lie class by class.
    """
    right = 0
    for known, asked in ((slice(0, None, 2), slice(1, None, 2)), (slice(1, None, 2), slice(0, None, 2))):
        if len(labels[known]):
            logits = knn_logits(features[known], labels[known], features[asked], classes)
            right += int((logits.argmax(dim=1) == labels[asked]).sum())
    return right / len(labels)


def linear_probe(
    features: Tensor,
    labels: Tensor,
    validation: tuple[Tensor, Tensor],
    classes: int,
    strengths: Sequence[float] = STRENGTHS,
) -> tuple[Tensor, Tensor]:
    """Weight ``(classes, D)`` and bias ``(classes,)`` of multinomial logistic regression on standardised features.

    Standardised as He et al. (2022, section A.1) do, so that no feature weighs by its size; given for the features as
    they are. Of the ``strengths`` of weight decay that one is taken whose accuracy on ``validation`` is the best.
    """
    mean, deviation = features.mean(dim=0), features.std(dim=0, correction=0) + 1e-6
    standard = (features - mean) / deviation
    found = []
    for strength in strengths:
        weight, bias = _logistic_regression(standard, labels, classes, strength)
        weight = weight / deviation
        bias = bias - weight @ mean
        right = (validation[0] @ weight.T + bias).argmax(dim=1) == validation[1]
        found.append((right.double().mean().item(), strength, weight, bias))
    _, _, weight, bias = max(found, key=lambda each: each[:2])  # of equals the strongest, which is the simplest
    return weight, bias


def _logistic_regression(x: Tensor, labels: Tensor, classes: int, strength: float) -> tuple[Tensor, Tensor]:
    """The minimum of mean cross-entropy + strength / 2 · |weight|², found by L-BFGS."""
    weight = torch.zeros(classes, x.shape[1], dtype=x.dtype, requires_grad=True)
    bias = torch.zeros(classes, dtype=x.dtype, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=200, line_search_fn="strong_wolfe", tolerance_change=1e-10)

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = F.cross_entropy(x @ weight.T + bias, labels) + strength / 2 * weight.square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    return weight.detach(), bias.detach()
