"""Entities against the definition of conlleval, word by word, and figures against counting by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitrail.metrics.spans import Span, marks_spans, span_figures, spans

TAGS = ("O", *(f"{letter}-{kind}" for letter in "BIES" for kind in ("PER", "LOC")))


def parted(tag: str) -> tuple[str, str]:
    letter, _, kind = tag.partition("-")
    return letter, kind


def begins(before: str, tag: str) -> bool:
    """conlleval's startOfChunk, of the letters that seqeval knows."""
    (letter0, kind0), (letter, kind) = parted(before), parted(tag)
    if letter in ("B", "S"):
        return True
    if letter in ("E", "I") and letter0 in ("E", "S", "O"):
        return True
    return letter != "O" and kind0 != kind


def ends(tag: str, after: str) -> bool:
    """conlleval's endOfChunk."""
    (letter, kind), (letter1, kind1) = parted(tag), parted(after)
    if letter in ("E", "S"):
        return True
    if letter in ("B", "I") and letter1 in ("B", "S", "O"):
        return True
    return letter != "O" and kind != kind1


def by_definition(tags: list[str]) -> list[Span]:
    """Every stretch that begins and ends as the definition says, and within which nothing else begins or ends."""
    padded = ["O", *tags, "O"]
    found = []
    for start in range(1, len(tags) + 1):
        for stop in range(start, len(tags) + 1):
            starts = [n for n in range(start, stop + 1) if begins(padded[n - 1], padded[n])]
            stops = [n for n in range(start, stop + 1) if padded[n] != "O" and ends(padded[n], padded[n + 1])]
            if starts == [start] and stops == [stop] and "O" not in padded[start : stop + 1]:
                found.append(Span(start - 1, stop, parted(padded[start])[1]))
    return found


@given(st.lists(st.sampled_from(TAGS), max_size=9))
def test_entities_are_those_of_conlleval(tags: list[str]) -> None:
    assert spans(tags) == by_definition(tags)


def test_known_sentences() -> None:
    assert spans(["B-PER", "I-PER", "O", "B-LOC"]) == [Span(0, 2, "PER"), Span(3, 4, "LOC")]
    assert spans(["I-PER", "I-LOC", "B-LOC", "O"]) == [Span(0, 1, "PER"), Span(1, 2, "LOC"), Span(2, 3, "LOC")]
    assert spans(["U-PER", "B-LOC", "L-LOC"]) == [Span(0, 1, "PER"), Span(1, 3, "LOC")]
    assert spans(["NOUN", "O", "VERB"], marked=False) == [Span(0, 1, "NOUN"), Span(2, 3, "VERB")]


def test_what_kind_of_tags_they_are() -> None:
    assert marks_spans(("O", "B-PER", "I-PER"))
    assert not marks_spans(("NOUN", "VERB"))
    assert not marks_spans(("O", "PER"))
    assert not marks_spans(("O",))


def test_figures_by_hand() -> None:
    truth = [["B-PER", "I-PER", "O", "B-LOC"], ["B-LOC", "O"]]
    predicted = [["B-PER", "I-PER", "O", "B-PER"], ["B-LOC", "I-LOC"]]
    figures = span_figures(truth, predicted, marked=True)  # found 1 of 3, guessed 3: the last one is a word too long
    assert figures["precision"] == figures["recall"] == figures["f1"] == pytest.approx(1 / 3)
    assert figures["accuracy"] == pytest.approx(4 / 6)
    assert [(row["label"], row["f1"], row["images"]) for row in figures["per_class"]] == [
        ("LOC", 0.0, 2),
        ("PER", pytest.approx(2 / 3), 1),
    ]
    assert figures["macro_f1"] == pytest.approx(1 / 3)


def test_plain_tags_are_counted_word_by_word() -> None:
    figures = span_figures([["N", "V", "N"]], [["N", "N", "N"]], marked=False)
    assert figures["f1"] == figures["accuracy"] == pytest.approx(2 / 3)


def test_nothing_to_find() -> None:
    figures = span_figures([["O", "O"]], [["O", "O"]], marked=True)
    assert (figures["f1"], figures["accuracy"], figures["per_class"]) == (0.0, 1.0, [])
