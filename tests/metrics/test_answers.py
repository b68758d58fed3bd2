"""SQuAD's figures against its official definition, which is written out here, and thresholds by brute force."""

from __future__ import annotations

import collections
import re
import string

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitrail.metrics.answers import answer_figures, best_threshold, exact_match, normalised, overlap_f1


def official_normalisation(text: str) -> str:
    """As evaluate-v2.0.py goes about it: lower case, then punctuation, then articles, then spaces."""
    text = "".join(letter for letter in text.lower() if letter not in set(string.punctuation))
    return " ".join(re.sub(re.compile(r"\b(a|an|the)\b", re.UNICODE), " ", text).split())


def official_f1(gold: str, answer: str) -> float:
    gold_tokens, tokens = official_normalisation(gold).split(), official_normalisation(answer).split()
    same = sum((collections.Counter(gold_tokens) & collections.Counter(tokens)).values())
    if not gold_tokens or not tokens:
        return float(gold_tokens == tokens)
    if not same:
        return 0.0
    precision, recall = same / len(tokens), same / len(gold_tokens)
    return 2 * precision * recall / (precision + recall)


TEXTS = st.lists(
    st.sampled_from(["the", "The", "a", "cat", "Cat!", "cats", "anthem", "-", "an", "1,000", "U.S."]), max_size=5
)


@given(TEXTS, st.lists(TEXTS, max_size=3))
def test_the_official_figures(answer: list[str], given: list[list[str]]) -> None:
    said, texts = " ".join(answer), [" ".join(each) for each in given]
    golds = [text for text in texts if official_normalisation(text)] or [""]
    assert normalised(said) == official_normalisation(said)
    assert exact_match(said, texts) == max(official_normalisation(g) == official_normalisation(said) for g in golds)
    assert overlap_f1(said, texts) == pytest.approx(max(official_f1(gold, said) for gold in golds))


def test_known_answers() -> None:
    assert exact_match("The Norman conquest!", ["norman conquest"]) == 1
    assert overlap_f1("the Norman conquest of 1066", ["Norman conquest"]) == pytest.approx(2 * 2 / (4 + 2))
    assert (exact_match("", []), overlap_f1("", []), overlap_f1("x", [])) == (1, 1, 0)


def test_questions_with_and_without_an_answer_are_told_apart() -> None:
    figures = answer_figures(["Paris", "Rome", "", "x"], [["Paris"], ["the city of Rome"], [], []])
    assert figures["exact_match"] == 0.5
    assert figures["f1"] == pytest.approx((1 + 0.5 + 1 + 0) / 4)
    assert figures["answerable"] == {"exact_match": 0.5, "f1": 0.75, "questions": 2}
    assert figures["unanswerable"] == {"exact_match": 0.5, "f1": 0.5, "questions": 2}
    assert answer_figures(["Paris"], [["Paris"]]) == {"exact_match": 1.0, "f1": 1.0}


SHARE = st.sampled_from([0.0, 0.5, 1.0])


@given(st.lists(st.tuples(st.integers(-5, 5), SHARE, SHARE), min_size=1, max_size=12))
def test_the_best_threshold(questions: list[tuple[int, float, float]]) -> None:
    margins, scores, empty = (np.array(column, np.float64) for column in zip(*questions, strict=True))
    margins = margins + np.arange(len(margins)) / 100  # no two are the same
    worth = {edge: np.where(margins <= edge, scores, empty).mean() for edge in (*margins, margins.min() - 1)}
    found = best_threshold(margins, scores, empty)
    assert np.where(margins <= found, scores, empty).mean() == pytest.approx(max(worth.values()))
