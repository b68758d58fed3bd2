"""One label an image: accuracy, confusion, F1 and likelihood, as pure functions and gathered over a data set.

In all functions ``logits`` is ``(n, K)`` float (probabilities serve as well where only their order counts), ``targets``
is ``(n,)`` int64, and n >= 1. What would be 0 / 0 is 0: the precision of a class that is never predicted, the recall
of one that never occurs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vitrail.errors import DataError, VitrailError
from vitrail.metrics.calibration import expected_calibration_error, reliability, top_class

if TYPE_CHECKING:
    from torch import Tensor


class PerClass(NamedTuple):
    """Precision, recall and F1 ``(K,)`` float64, and the support ``(K,)`` int64: the true images of each class."""

    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    f1: NDArray[np.float64]
    support: NDArray[np.int64]


def top_k_accuracy(logits: NDArray, targets: NDArray[np.int64], k: int) -> float:
    """The share of images whose class is among the k first; of equal logits the lower class comes first."""
    own = logits[np.arange(len(targets)), targets][:, None]
    earlier = np.arange(logits.shape[1]) < targets[:, None]
    ahead = (logits > own) | ((logits == own) & earlier)
    return float((ahead.sum(axis=1) < k).mean())


def confusion_matrix(logits: NDArray, targets: NDArray[np.int64]) -> NDArray[np.int64]:
    """How often class i (row, the truth) was taken for class j (column): ``(K, K)`` int64."""
    K = logits.shape[1]
    pairs = targets * K + logits.argmax(axis=1)
    return np.bincount(pairs, minlength=K * K).reshape(K, K)


def most_confused(confusion: NDArray[np.int64], limit: int) -> list[tuple[int, int, int]]:
    """The mistakes that happen most: at most ``limit`` of (truth, prediction, count), the frequent first."""
    mistakes = confusion.copy()
    np.fill_diagonal(mistakes, 0)
    order = np.argsort(-mistakes, axis=None, kind="stable")[:limit]
    pairs = zip(*np.unravel_index(order, mistakes.shape), strict=True)
    return [(int(i), int(j), int(mistakes[i, j])) for i, j in pairs if mistakes[i, j]]


def per_class(confusion: NDArray[np.int64]) -> PerClass:
    """Precision, recall, F1 and support of every class of a confusion matrix ``(K, K)``."""
    return precision_recall_f1(confusion.diagonal(), confusion.sum(axis=0), confusion.sum(axis=1))


def precision_recall_f1(hits: NDArray, predicted: NDArray, support: NDArray) -> PerClass:
    """The same from counts ``(K,)``: rightly predicted, predicted, true."""
    return PerClass(_ratio(hits, predicted), _ratio(hits, support), _ratio(2 * hits, predicted + support), support)


def macro_f1(scores: PerClass) -> float:
    """The mean F1 of the classes that occur in the data; those that do not are left out. 0 if none does."""
    return mean_where(scores.f1, scores.support > 0)


def mean_where(values: NDArray, chosen: NDArray[np.bool_]) -> float:
    """The mean of the chosen values, 0 if there are none."""
    return float(values[chosen].mean()) if chosen.any() else 0.0


def negative_log_likelihood(logits: NDArray, targets: NDArray[np.int64]) -> float:
    """The mean of -log softmax(logits)[target], in nats."""
    shifted = logits - logits.max(axis=1, keepdims=True)  # so that no exponential overflows
    own = shifted[np.arange(len(targets)), targets]
    return float((np.log(np.exp(shifted).sum(axis=1)) - own).mean(dtype=np.float64))


def as_rows(classes: Sequence[str], scores: PerClass) -> list[dict[str, Any]]:
    """One ``{label, precision, recall, f1, images}`` a class, ready for JSON."""
    names = ("precision", "recall", "f1", "images")
    columns = (column.tolist() for column in scores)
    return [
        {"label": label, **dict(zip(names, row, strict=True))} for label, *row in zip(classes, *columns, strict=True)
    ]


class LogitMetric(ABC):
    """Gathers logits and targets of numbered images, in one process or in many.

    What is computed depends only on which images were seen: not on their order, nor on how batches or processes shared
    them. An image that comes twice, as when processes are given equally many, counts once.
    """

    def __init__(self, classes: Sequence[str]) -> None:
        self.classes = tuple(classes)
        self._shares: list[tuple[NDArray[np.int64], NDArray[np.float32], NDArray]] = []

    def update(self, logits: Tensor, labels: Tensor, numbers: Sequence[int]) -> None:
        """Take in a batch: ``logits`` and ``labels`` ``(B, K)`` on any device, and the numbers of its B images.

        Raises :class:`VitrailError` if a logit is not finite.
        """
        if not len(logits) == len(labels) == len(numbers):
            raise ValueError(f"{len(logits)} logits, {len(labels)} labels and {len(numbers)} numbers do not match")
        values = logits.detach().float().cpu().numpy().copy()
        broken = np.flatnonzero(~np.isfinite(values).all(axis=1))
        if len(broken):
            raise VitrailError(
                f"the model's answer to image {numbers[broken[0]]} is not finite; "
                "its weights are damaged, or the precision is too low: try --precision float32."
            )
        self._shares.append((np.array(numbers, np.int64), values, self._targets(labels.detach().cpu().numpy())))

    def merge(self, others: Iterable[LogitMetric]) -> None:
        """Take in what other processes gathered."""
        self._shares += [share for other in others for share in other._shares]

    @property
    def logits(self) -> NDArray[np.float32]:
        """``(n, K)``, in the order of the images' numbers."""
        return self._joined()[1]

    @property
    def targets(self) -> NDArray:
        """In the order of the images' numbers: classes ``(n,)`` int64, or for many labels ``(n, K)`` bool."""
        return self._joined()[2]

    @abstractmethod
    def compute(self) -> dict[str, Any]:
        """All figures, ready for JSON. Raises :class:`DataError` if there was no image."""

    @staticmethod
    @abstractmethod
    def _targets(labels: NDArray) -> NDArray:
        """What is kept of labels ``(B, K)``."""

    def _joined(self) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray]:
        if not self._shares:
            raise DataError("there is nothing to evaluate: no image with a label was read.")
        numbers, logits, targets = (np.concatenate(parts) for parts in zip(*self._shares, strict=True))
        numbers, first = np.unique(numbers, return_index=True)
        self._shares = [(numbers, logits[first], targets[first])]
        return self._shares[0]


class ClassificationMetric(LogitMetric):
    """Figures for one label an image; labels are one-hot ``(B, K)`` (of mixed ones the largest share counts)."""

    def compute(self) -> dict[str, Any]:
        """``top1``, ``top5``, ``macro_f1``, ``ece``, ``nll``, ``images``, ``per_class`` and ``confusion``, by name."""
        _, logits, targets = self._joined()
        confusion = confusion_matrix(logits, targets)
        scores = per_class(confusion)
        return {
            "top1": top_k_accuracy(logits, targets, 1),
            "top5": top_k_accuracy(logits, targets, min(5, len(self.classes))),
            "macro_f1": macro_f1(scores),
            "ece": expected_calibration_error(reliability(*top_class(logits, targets))),
            "nll": negative_log_likelihood(logits, targets),
            "images": len(targets),
            "per_class": as_rows(self.classes, scores),
            "confusion": confusion.tolist(),
        }

    @staticmethod
    def _targets(labels: NDArray) -> NDArray[np.int64]:
        return labels.argmax(axis=1)


def _ratio(part: NDArray, whole: NDArray) -> NDArray[np.float64]:
    return np.divide(part, whole, out=np.zeros(len(whole)), where=whole > 0)
