"""Many labels an image, or none: average precision, F1 and likelihood, as pure functions and gathered over a data set.

``logits`` is ``(n, K)`` float, ``targets`` ``(n, K)`` bool. A label is predicted where its probability is at least 0.5,
that is, its logit at least 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitrail.metrics.calibration import each_decision, expected_calibration_error, reliability
from vitrail.metrics.classification import LogitMetric, PerClass, as_rows, macro_f1, mean_where, precision_recall_f1


def average_precision(scores: NDArray, positive: NDArray[np.bool_]) -> float:
    """The area under the precision–recall steps, the sum of (R_i - R_(i-1)) P_i over the distinct scores.

    Equal scores enter together, so their order cannot matter (as in scikit-learn; nothing is interpolated).

    Args:
        scores: ``(n,)``, higher for what is held more likely.
        positive: ``(n,)`` bool; if none is, the result is 0.
    """
    if not positive.any():
        return 0.0
    order = np.argsort(-scores)
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)  # the last of each run of equal scores
    hits = np.cumsum(positive[order])[last]
    precision = hits / (last + 1)
    recall_gained = np.diff(hits, prepend=0) / hits[-1]
    return float((recall_gained * precision).sum())


def per_label(logits: NDArray, targets: NDArray[np.bool_]) -> PerClass:
    """Precision, recall, F1 and support of every label, at probability 0.5."""
    predicted = logits >= 0
    return precision_recall_f1((predicted & targets).sum(axis=0), predicted.sum(axis=0), targets.sum(axis=0))


def micro_f1(logits: NDArray, targets: NDArray[np.bool_]) -> float:
    """The F1 of all decisions together, at probability 0.5; 0 if nothing is true and nothing predicted."""
    return float(per_label(logits.reshape(-1, 1), targets.reshape(-1, 1)).f1[0])


def binary_negative_log_likelihood(logits: NDArray, targets: NDArray[np.bool_]) -> float:
    """The mean over all n K decisions of -log p(truth), in nats."""
    return float(np.logaddexp(0, np.where(targets, -logits, logits)).mean(dtype=np.float64))


class ManyLabelsMetric(LogitMetric):
    """Figures for many labels an image; labels are multi-hot ``(B, K)``."""

    def compute(self) -> dict[str, Any]:
        """``map``, ``macro_f1``, ``micro_f1``, ``nll``, ``ece``, ``images`` and ``per_class``, by name.

        ``map`` and ``macro_f1`` are means over the labels that occur, ``nll`` and ``ece`` over every yes or no.
        """
        _, logits, targets = self._joined()
        scores = per_label(logits, targets)
        precisions = np.array([average_precision(*column) for column in zip(logits.T, targets.T, strict=True)])
        rows = zip(as_rows(self.classes, scores), precisions.tolist(), strict=True)
        return {
            "map": mean_where(precisions, scores.support > 0),
            "macro_f1": macro_f1(scores),
            "micro_f1": micro_f1(logits, targets),
            "nll": binary_negative_log_likelihood(logits, targets),
            "ece": expected_calibration_error(reliability(*each_decision(logits, targets))),
            "images": len(targets),
            "per_class": [{**row, "average_precision": precision} for row, precision in rows],
        }

    @staticmethod
    def _targets(labels: NDArray) -> NDArray[np.bool_]:
        return labels >= 0.5
