"""Pairs of stretches of text: what belongs together, what does not, and that all of it is a function of n."""

import os
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vitrail.data.text.characters import learn
from vitrail.data.text.sentences import EvaluationPairs, Sentences, TrainingPairs, cut, sentence_ends, truncated
from vitrail.data.text.tokenizers import open_tokenizer
from vitrail.errors import DataError, SettingError

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
LETTERS = "abcdefghijklmnopqrstuvwxyz"
TOKENIZER = learn([LETTERS + ".!?\n "], 100, SPECIAL)


def document(number, sentences=40):
    """Sentences of 3 to 9 letters, none of which is in another document or twice in this one."""
    names = (f"{LETTERS[number]}{LETTERS[k // 26]}{LETTERS[k % 26]}" for k in range(sentences))
    return [name + "x" * (k % 7) + "." for k, name in enumerate(names)]


def sentences_of(documents, context=32):
    return Sentences.of(TOKENIZER.encode_many(["".join(each) for each in documents]), TOKENIZER, context)


def words(ids):
    return TOKENIZER.decode(list(ids))


def test_sentences_end_with_a_stop_or_a_line_and_are_never_too_long():
    text = "one. two three!? four\n\nfive... sixsevenight"
    (found,) = TOKENIZER.encode_many([text])
    lengths = cut(found, sentence_ends(TOKENIZER), most=9)
    parts = [words(part) for part in np.split(found, lengths.cumsum()[:-1])]
    assert parts == ["one.", " two thre", "e!?", " four\n\n", "five...", " sixseven", "ight"]
    assert cut(found[:0], sentence_ends(TOKENIZER), 9).tolist() == []


@given(st.lists(st.integers(0, 9), max_size=60), st.integers(1, 8))
def test_sentences_make_up_the_document(tokens, most):
    ends = np.array([False] * 8 + [True] * 2)
    lengths = cut(np.array(tokens, np.int32), ends, most)
    assert lengths.sum() == len(tokens)
    assert all(1 <= length <= most for length in lengths)


@settings(deadline=None)
@given(st.integers(0, 119), st.integers(0, 2**31))
def test_a_pair_is_two_stretches_that_fit(first, seed):
    documents = [document(number) for number in range(3)]
    sentences = sentences_of(documents)
    pair = sentences.pair(first, np.random.default_rng(seed))
    a, b = words(pair.first), words(pair.second)
    assert len(a) > 0
    assert len(b) > 0
    assert len(a) + len(b) <= 29
    texts = ["".join(each) for each in documents]
    home = texts[first // 40]
    assert a in home
    if pair.elsewhere:
        assert b not in home
        assert any(b in text for text in texts)
    else:
        joined = home[home.index(a) : home.index(b) + len(b)]
        assert joined.startswith(a)
        assert len(joined) <= len(a) + len(b) + 12  # what was cut off between them
        assert home.index(a) < home.index(b)


def test_of_one_document_other_text_is_none_of_the_stretch():
    sentences = sentences_of([document(0, 80)])
    for seed in range(200):
        rng = np.random.default_rng(seed)
        other = sentences.elsewhere(30, 36, rng)
        assert 0 <= other < 80
        assert other not in range(30, 36)


def test_half_of_the_pairs_do_not_belong_together():
    sentences = sentences_of([document(number) for number in range(4)])
    labels = torch.cat([TrainingPairs(sentences, 100)[step].labels for step in range(20)])
    last_of_documents = 1 / 40  # nothing follows these
    assert labels.double().mean().item() == pytest.approx(0.5 + last_of_documents / 2, abs=0.03)


def test_rows_are_framed_and_filled_up():
    batch = TrainingPairs(sentences_of([document(0), document(1)]), 64)[5]
    assert batch.ids.shape == batch.segments.shape == batch.mask.shape == (64, 32)
    lengths = batch.mask.sum(dim=1)
    assert (batch.mask == (torch.arange(32) < lengths[:, None])).all()
    assert (batch.ids[~batch.mask] == TOKENIZER.pad).all()
    assert (batch.ids[:, 0] == TOKENIZER.first).all()
    separators = batch.ids == TOKENIZER.separator
    assert (separators.sum(dim=1) == 2).all()
    assert separators[torch.arange(64), lengths - 1].all()
    first = separators.int().argmax(dim=1)
    expected = (torch.arange(32) > first[:, None]) & batch.mask
    assert torch.equal(batch.segments, expected.long())
    assert 0 < (lengths < 20).double().mean() < 0.3  # some are shorter than they could be
    assert ((batch.labels == 0) | (batch.labels == 1)).all()


def test_batches_are_a_function_of_seed_and_number():
    sentences = sentences_of([document(0), document(1)])
    one, same, other = (TrainingPairs(sentences, 8, seed)[3] for seed in (4, 4, 5))
    assert torch.equal(one.ids, same.ids)
    assert torch.equal(one.draws, same.draws)
    assert not torch.equal(one.ids, other.ids)
    assert not torch.equal(one.ids, TrainingPairs(sentences, 8, 4)[4].ids)


def test_processes_make_the_rows_of_the_same_batch():
    sentences = sentences_of([document(0), document(1)])
    whole = TrainingPairs(sentences, 8, 1)[2]
    parts = [TrainingPairs(sentences, 8, 1, rank, 4)[2] for rank in range(4)]
    for name in ("ids", "segments", "mask", "labels", "draws"):
        assert torch.equal(torch.cat([getattr(part, name) for part in parts]), getattr(whole, name))
    assert sum((part.names for part in parts), ()) == whole.names
    with pytest.raises(SettingError, match="does not divide into 3"):
        TrainingPairs(sentences, 8, world=3)


def test_evaluation_goes_through_the_text_once_in_any_number_of_processes():
    sentences = sentences_of([document(0), document(1)])
    pairs = EvaluationPairs(sentences, 4)
    names = [name for step in range(len(pairs)) for name in pairs[step].names]
    firsts = [int(name.split()[1]) for name in names]
    assert firsts[0] == 0
    assert firsts == sorted(set(firsts))
    gaps = [len(sentences.between(a, b)) for a, b in pairwise(firsts)]
    assert all(gap <= 29 + 9 for gap in gaps)
    shared = [EvaluationPairs(sentences, 4, rank, 2) for rank in range(2)]
    of_both = [name for each in shared for step in range(len(each)) for name in each[step].names]
    assert sorted(of_both) == sorted(names)
    few = EvaluationPairs(sentences, 4, most=3)
    assert (len(few), len(few[0])) == (1, 3)


@given(st.integers(1, 30), st.integers(1, 30), st.integers(2, 25), st.integers(0, 9))
def test_truncation_leaves_stretches_of_both_that_are_as_long_as_can_be(a, b, room, seed):
    first, second = np.arange(a, dtype=np.int32), np.arange(100, 100 + b, dtype=np.int32)
    left, right = truncated(first, second, room, np.random.default_rng(seed))
    assert len(left) + len(right) == min(a + b, room)
    assert min(len(left), len(right)) >= min(a, b, room // 2)
    for part in (left, right):
        assert (np.diff(part) == 1).all()


def test_text_of_which_no_pairs_can_be_made():
    with pytest.raises(DataError, match="too few for pairs"):
        sentences_of([["too little."]])
    with pytest.raises(DataError, match="one sentence, which no other follows"):
        sentences_of([[line] for line in document(0)])
    with pytest.raises(SettingError, match="a context of 4 has no room"):
        sentences_of([document(0)], context=4)


@pytest.mark.skipif("VITRAIL_DATA" not in os.environ, reason="set VITRAIL_DATA to the folder with texts and tokenizers")
def test_real_text_in_googles_pieces():
    data = Path(os.environ["VITRAIL_DATA"])
    tokenizer = open_tokenizer(data / "tokenizers" / "bert")
    text = (data / "text" / "wikitext-2" / "valid.txt").read_text(encoding="utf-8")[:200_000]
    sentences = Sentences.of(tokenizer.encode_many([text]), tokenizer, 128)
    mean = len(sentences.ids) / len(sentences)
    assert 10 < mean < 40  # English sentences have about 20 words
    ends = sentences.ids[sentences.starts[1:] - 1]
    dots = tokenizer.encode(". ! ?")
    assert np.isin(ends, dots).mean() > 0.9
