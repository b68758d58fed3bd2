"""How near an answer is to those that people gave: SQuAD's exact match and F1 (Rajpurkar et al. 2016, section 6.1)."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalised(text: str) -> str:
    """In small letters, without punctuation, articles and superfluous spaces."""
    plain = text.lower().translate(PUNCTUATION)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", plain).split())


def exact_match(answer: str, given: Sequence[str]) -> float:
    """1 if the answer is one of those given, but for what `normalised` removes; no answer is the empty one."""
    return float(any(normalised(answer) == normalised(each) for each in _wanted(given)))


def overlap_f1(answer: str, given: Sequence[str]) -> float:
    """The F1 of the answer's words and those of the given answer that is nearest to it."""
    return max(_f1(normalised(answer).split(), normalised(each).split()) for each in _wanted(given))


def answer_figures(answers: Sequence[str], given: Sequence[Sequence[str]]) -> dict[str, Any]:
    """``exact_match`` and ``f1``, means over all questions; and apart for those with an answer and those without one.

    Args:
        answers: one a question; empty for none.
        given: what people answered, nothing where there is no answer (SQuAD 2.0).
    """
    matches = np.array([exact_match(*pair) for pair in zip(answers, given, strict=True)])
    overlaps = np.array([overlap_f1(*pair) for pair in zip(answers, given, strict=True)])
    answerable = np.array([_wanted(each) != [""] for each in given])
    figures: dict[str, Any] = {"exact_match": float(matches.mean()), "f1": float(overlaps.mean())}
    if 0 < answerable.sum() < len(answerable):
        figures["answerable"] = _means(matches, overlaps, answerable)
        figures["unanswerable"] = _means(matches, overlaps, ~answerable)
    return figures


def best_threshold(margins: NDArray[np.float64], scores: NDArray[np.float64], empty: NDArray[np.float64]) -> float:
    """The threshold that gives the highest mean score where questions of a larger margin are not answered.

    Args:
        margins: ``(n,)``, by how much "there is no answer" is ahead of the best answer.
        scores: ``(n,)``, what the best answer is worth.
        empty: ``(n,)``, what no answer is worth.
    """
    order = np.argsort(margins)
    gains = np.concatenate([[0.0], np.cumsum((scores - empty)[order])])
    best = int(gains.argmax())  # so many questions, those of the least margins, are answered
    edges = np.concatenate([[margins[order[0]] - 1], margins[order], [margins[order[-1]] + 1]])
    return float((edges[best] + edges[best + 1]) / 2)


def _wanted(given: Sequence[str]) -> list[str]:
    return [each for each in given if normalised(each)] or [""]


def _f1(answer: list[str], wanted: list[str]) -> float:
    if not answer or not wanted:
        return float(answer == wanted)
    common = sum((Counter(answer) & Counter(wanted)).values())
    return 2 * common / (len(answer) + len(wanted))


def _means(matches: NDArray, overlaps: NDArray, chosen: NDArray[np.bool_]) -> dict[str, Any]:
    return {
        "exact_match": float(matches[chosen].mean()),
        "f1": float(overlaps[chosen].mean()),
        "questions": int(chosen.sum()),
    }
