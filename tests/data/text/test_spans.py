"""Span corruption: what is read and what is written make up the text again, whatever the draw."""

import itertools
from collections import Counter

import pytest
import torch

from vitrail.data.text.spans import Lengths, corrupted, hidden_spans, lengths_of, longest, random_pieces
from vitrail.errors import SettingError

SENTINELS, END = [900, 901, 902, 903, 904, 905, 906, 907, 908, 909], 999
DRAWS = torch.randint(2**62, (500,), generator=torch.Generator().manual_seed(0))


def test_the_papers_lengths():
    """512 tokens to read come of 568, of which 114 are written with their sentinels and the end (T5's pretrain.gin)."""
    found = longest(512, 0.15, 3.0)
    assert found == Lengths(window=568, hidden=85, spans=28)
    assert (found.source, found.target) == (512, 114)


@pytest.mark.parametrize(
    ("context", "ratio", "span"), [(64, 0.15, 3.0), (20, 0.5, 4.0), (33, 0.9, 5.0), (16, 0.3, 1.0)]
)
def test_the_longest_window_fits_and_the_next_does_not(context, ratio, span):
    found = longest(context, ratio, span)
    after = lengths_of(found.window + 1, ratio, span)
    assert max(found.source, found.target) <= context < max(after.source, after.target)


def filled_in(source, target):
    """The text again, as a person would put it together."""
    spans = {}
    for token in target[:-1]:
        if token in SENTINELS:
            span = spans.setdefault(token, [])
        else:
            span.append(token)
    return [each for token in source[:-1] for each in spans.get(token, [token])]


@pytest.mark.parametrize(("window", "ratio", "span"), [(30, 0.15, 3.0), (30, 0.5, 3.0), (12, 0.9, 5.0), (7, 0.1, 3.0)])
def test_source_and_target_make_up_the_text(window, ratio, span):
    lengths = lengths_of(window, ratio, span)
    ids = torch.randint(800, (len(DRAWS), window))
    source, target = corrupted(ids, DRAWS, lengths, SENTINELS, END)
    assert source.shape == (len(DRAWS), lengths.source)
    assert target.shape == (len(DRAWS), lengths.target)
    marks = SENTINELS[: lengths.spans]
    for row, read, written in zip(ids.tolist(), source.tolist(), target.tolist(), strict=True):
        assert filled_in(read, written) == row
        assert read[-1] == written[-1] == END
        assert [token for token in read if token in SENTINELS] == marks
        assert [token for token in written if token in SENTINELS] == marks
        assert written[0] == SENTINELS[0]
        assert read[0] not in SENTINELS


def test_every_way_to_take_out_spans_is_as_likely():
    """4 of 9 tokens in 2 spans: 3 ways to cut what goes, 10 to put it among what stays."""
    draws = torch.randint(2**62, (60_000,), generator=torch.Generator().manual_seed(1))
    counts = Counter(map(tuple, hidden_spans(draws, Lengths(9, 4, 2)).long().tolist()))
    expected = {
        (*[0] * before, *[1] * first, *[0] * between, *[1] * (4 - first), *[0] * (5 - before - between))
        for before, between, first in itertools.product(range(1, 6), range(1, 6), range(1, 4))
        if before + between <= 5
    }
    assert counts.keys() == expected
    assert len(expected) == 30
    assert all(abs(count - 2000) < 5 * 2000**0.5 for count in counts.values())


def test_pieces_are_cut_where_the_numbers_are_least():
    numbers = torch.tensor([[0.9, 0.1, 0.8, 0.2, 0.7], [0.1, 0.2, 0.3, 0.4, 0.5]])
    assert random_pieces(numbers, 3).tolist() == [[2, 2, 2], [1, 1, 4]]
    assert random_pieces(numbers, 1).tolist() == [[6], [6]]
    assert random_pieces(numbers, 6).tolist() == [[1] * 6, [1] * 6]
    assert random_pieces(numbers[:, :0], 1).tolist() == [[1], [1]]


def test_a_row_depends_on_its_own_draw_alone():
    lengths = lengths_of(30, 0.3, 3.0)
    together = hidden_spans(DRAWS, lengths)
    alone = torch.cat([hidden_spans(draw[None], lengths) for draw in DRAWS[:20]])
    assert torch.equal(together[:20], alone)
    assert len({tuple(row) for row in together.tolist()}) > 400


@pytest.mark.parametrize(("ratio", "span"), [(0.0, 3.0), (1.0, 3.0), (-0.1, 3.0), (0.15, 0.5)])
def test_a_share_that_hides_nothing_or_everything_is_refused(ratio, span):
    with pytest.raises(SettingError, match="makes no sense; some tokens must be hidden"):
        longest(64, ratio, span)


def test_a_context_that_is_too_small_is_refused():
    with pytest.raises(SettingError, match="a context of 2 tokens is too small"):
        longest(2, 0.15, 3.0)
    assert longest(3, 0.15, 3.0) == Lengths(2, 1, 1)
