"""Entities that a row of tags marks, and how many of them are found: CoNLL's precision, recall and F1.

Tjong Kim Sang and De Meulder, "Introduction to the CoNLL-2003 Shared Task", 2003, section 3; where tags do not fit
together they are read as its program conlleval and the package seqeval read them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from vitrail.metrics.classification import as_rows, macro_f1, precision_recall_f1

MARKED = re.compile("([BIESLU])-(.+)")
ENDS = {"L": "E", "U": "S"}  # other letters for the last word of several, and for one that is alone


class Span(NamedTuple):
    """Words ``start`` to ``stop - 1`` are one thing of this kind."""

    start: int
    stop: int
    kind: str


def marks_spans(classes: Iterable[str]) -> bool:
    """Whether tags say where things begin and end (``B-PER``, ``I-PER``, ``O``), or are of single words (``NOUN``)."""
    others = [name for name in classes if name != "O"]
    return bool(others) and all(MARKED.fullmatch(name) for name in others)


def spans(tags: Sequence[str], marked: bool = True) -> list[Span]:
    """What a sentence's tags mark, in the order of the words.

    A thing begins at B or S, where nothing was before, after E or S, and where the kind changes; it ends at E or S,
    before whatever begins, and before O. Tags that are not ``marked`` are of one word each, but for O.
    """
    if not marked:
        return [Span(number, number + 1, tag) for number, tag in enumerate(tags) if tag != "O"]
    found: list[Span] = []
    start, letter, kind = 0, "O", ""
    for number, tag in enumerate((*tags, "O")):
        match = MARKED.fullmatch(tag)
        now, of = (ENDS.get(match[1], match[1]), match[2]) if match else ("O", "")
        goes_on = now in "IE" and letter in "BI" and of == kind
        if letter != "O" and not goes_on:
            found.append(Span(start, number, kind))
        if not goes_on:
            start = number
        letter, kind = now, of
    return found


def span_figures(truth: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]], marked: bool) -> dict[str, Any]:
    """``precision``, ``recall`` and ``f1`` over all things, ``macro_f1`` over their kinds, ``accuracy`` over the words.

    A thing is found if one of the same words and the same kind is predicted.

    Args:
        truth, predicted: the tags of the same sentences.
        marked: as of `spans`.
    """
    hits, guessed, there = Counter[str](), Counter[str](), Counter[str]()
    for of_truth, of_prediction in zip(truth, predicted, strict=True):
        wanted, given = set(spans(of_truth, marked)), set(spans(of_prediction, marked))
        hits.update(span.kind for span in wanted & given)
        guessed.update(span.kind for span in given)
        there.update(span.kind for span in wanted)
    kinds = sorted(guessed | there)
    counts = [np.array([of[kind] for kind in kinds], np.int64) for of in (hits, guessed, there)]
    scores = precision_recall_f1(*counts)
    total = precision_recall_f1(*(count.sum(keepdims=True) for count in counts))
    words = [(a, b) for pair in zip(truth, predicted, strict=True) for a, b in zip(*pair, strict=True)]
    return {
        "f1": float(total.f1[0]),
        "precision": float(total.precision[0]),
        "recall": float(total.recall[0]),
        "macro_f1": macro_f1(scores),
        "accuracy": sum(a == b for a, b in words) / max(len(words), 1),
        "per_class": as_rows(kinds, scores),
    }
