"""Whether a model is as sure as it is right: reliability, expected calibration error, temperature scaling.

Guo, Pleiss, Sun and Weinberger, "On Calibration of Modern Neural Networks", ICML 2017.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

BINS = 15  # as in the paper's tables
COLDEST, HOTTEST = 0.01, 100.0  # where a temperature is looked for


class Reliability(NamedTuple):
    """Decisions sorted by their confidence into M bins of equal width, of which bin m is ``(m / M, (m + 1) / M]``.

    Attributes:
        counts: ``(M,)`` int64, the number of decisions in each bin.
        confidence: ``(M,)`` float64, their mean confidence; 0 in an empty bin.
        accuracy: ``(M,)`` float64, the share of them that is right; 0 in an empty bin.
    """

    counts: NDArray[np.int64]
    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]


def top_class(logits: NDArray, targets: NDArray[np.int64]) -> tuple[NDArray, NDArray[np.bool_]]:
    """How sure a softmax over ``logits`` ``(n, K)`` is of its first choice, and whether it is right: two ``(n,)``."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    confidences = 1 / np.exp(shifted).sum(axis=1)  # the largest term of the softmax is exp(0)
    return confidences, logits.argmax(axis=1) == targets


def each_decision(logits: NDArray, targets: NDArray[np.bool_]) -> tuple[NDArray, NDArray[np.bool_]]:
    """The same for many labels ``(n, K)``, where every yes or no is a decision of its own: two ``(n K,)``.

    The decision is yes where the probability p is at least 0.5. A sigmoid is a softmax over (0, logit), so the
    confidence of a decision is max(p, 1 - p).
    """
    confidences = 1 / (1 + np.exp(-np.abs(logits)))
    return confidences.ravel(), ((logits >= 0) == targets).ravel()


def reliability(confidences: NDArray, correct: NDArray[np.bool_], bins: int = BINS) -> Reliability:
    """Sort decisions ``(n,)`` into equal-width bins of their confidence (section 2, "Reliability Diagrams")."""
    edges = np.linspace(0, 1, bins + 1)
    index = np.clip(np.searchsorted(edges, confidences, side="left") - 1, 0, bins - 1)
    counts = np.bincount(index, minlength=bins)
    at_least_one = np.maximum(counts, 1)
    confidence = np.bincount(index, weights=confidences, minlength=bins) / at_least_one
    accuracy = np.bincount(index, weights=correct, minlength=bins) / at_least_one
    return Reliability(counts, confidence, accuracy)


def expected_calibration_error(table: Reliability) -> float:
    """The mean distance between confidence and accuracy, each bin weighted by its decisions (equation 3), 0 to 1."""
    gaps = np.abs(table.accuracy - table.confidence)
    return float((table.counts * gaps).sum() / max(table.counts.sum(), 1))


def fit_temperature(logits: NDArray, targets: NDArray[np.int64]) -> float:
    """The T > 0 for which ``softmax(logits / T)`` has the least negative log-likelihood (section 4.2).

    The likelihood is convex in 1 / T, so its slope changes sign at most once: that place is found by halving an
    interval of log T. Where there is no minimum from 0.01 to 100 (every answer is right, or the logits say less than
    nothing about the classes), the data do not tell how sure to be, and T stays 1.

    Args:
        logits: ``(n, K)`` float, n >= 1; not those the model was trained on.
        targets: ``(n,)`` int64.
    """
    shifted = logits - logits.max(axis=1, keepdims=True)
    own = shifted[np.arange(len(targets)), targets]
    if _slope(shifted, own, COLDEST) <= 0 or _slope(shifted, own, HOTTEST) >= 0:
        return 1.0
    low, high = math.log(COLDEST), math.log(HOTTEST)
    for _ in range(32):  # 9.2 / 2^32: closer than float32 can tell
        middle = (low + high) / 2
        if _slope(shifted, own, math.exp(middle)) > 0:
            low = middle
        else:
            high = middle
    return math.exp((low + high) / 2)


def _slope(shifted: NDArray, own: NDArray, temperature: float) -> float:
    """The derivative of the mean negative log-likelihood in 1 / T: the expected logit less that of the true class."""
    weights = np.exp(shifted / temperature)
    expected = (weights * shifted).sum(axis=1) / weights.sum(axis=1)
    return float((expected - own).mean(dtype=np.float64))
