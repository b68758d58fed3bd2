"""Beam search against every sequence there is, on a model that is a table of random chances."""

import itertools
import math

import pytest
import torch

from vitrail.nn.beam import Answer, beam_search, likeliest, token_by_token

END = 0


class Table:
    """What comes next depends on all that was written, by chances that are drawn once for each beginning."""

    def __init__(self, vocabulary, seed, rows=1):
        self.vocabulary, self.seed = vocabulary, seed
        self.written = [[row] for row in range(rows)]  # sequences of a batch differ by their first token
        self.started = False

    def logits(self, beginning):
        generator = torch.Generator().manual_seed(hash((self.seed, *beginning)) % 2**31)
        return 2 * torch.randn(self.vocabulary, generator=generator)

    def step(self, last):
        if self.started:
            self.written = [[*row, token] for row, token in zip(self.written, last.tolist(), strict=True)]
        self.started = True
        return torch.stack([self.logits(row) for row in self.written])

    def select(self, rows):
        self.written = [list(self.written[row]) for row in rows.tolist()]


def every_answer(table, most, penalty):
    """All sequences that end, or are cut after ``most`` tokens, with their scores, the best first."""
    answers = []
    for length in range(1, most + 1):
        for ids in itertools.product(range(table.vocabulary), repeat=length):
            if END in ids[:-1] or (length < most and ids[-1] != END):
                continue
            total = sum(table.logits([0, *ids[:t]]).log_softmax(-1)[token].item() for t, token in enumerate(ids))
            answers.append(Answer(ids, total / length**penalty))
    return sorted(answers, key=lambda answer: -answer.score)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("penalty", [0.0, 0.6, 1.0, 2.0])
def test_with_enough_beams_it_finds_all_answers_in_their_order(seed, penalty):
    expected = every_answer(Table(3, seed), 4, penalty)
    found = beam_search(Table(3, seed), torch.tensor([0]), END, 4, beams=200, length_penalty=penalty)
    assert [answer.ids for answer in found] == [answer.ids for answer in expected]
    for answer, true in zip(found, expected, strict=True):
        assert math.isclose(answer.score, true.score, abs_tol=1e-5)


@pytest.mark.parametrize("seed", range(20))
def test_the_score_is_that_of_the_answer_and_no_answer_comes_twice(seed):
    every = {answer.ids: answer.score for answer in every_answer(Table(4, seed), 4, 1.0)}
    found = beam_search(Table(4, seed), torch.tensor([0]), END, 4, beams=3)
    assert 1 <= len(found) <= 3
    assert len({answer.ids for answer in found}) == len(found)
    assert [answer.score for answer in found] == sorted((answer.score for answer in found), reverse=True)
    for answer in found:
        assert math.isclose(answer.score, every[answer.ids], abs_tol=1e-5)


def test_more_beams_find_what_the_likeliest_token_misses():
    """A first token that is likely leads to unlikely ones."""

    class Trap(Table):
        def logits(self, beginning):
            chances = {1: [0.01, 0.6, 0.39], 2: [0.3, 0.4, 0.3] if beginning[-1] == 1 else [0.98, 0.01, 0.01]}
            return torch.tensor(chances[min(len(beginning), 2)]).log()

    one = beam_search(Trap(3, 0), torch.tensor([0]), END, 2, beams=1)
    two = beam_search(Trap(3, 0), torch.tensor([0]), END, 2, beams=2)
    assert one[0].ids == (1, 1)
    assert two[0].ids == (2, END)
    assert math.isclose(two[0].score, math.log(0.39 * 0.98) / 2, abs_tol=1e-6)


@pytest.mark.parametrize("seed", range(10))
def test_one_beam_takes_the_likeliest_token_each_time(seed):
    greedy = token_by_token(Table(5, seed), torch.tensor([0]), END, 6)[0].tolist()
    assert list(beam_search(Table(5, seed), torch.tensor([0]), END, 6, beams=1)[0].ids) == greedy
    beginning = [0]
    for token in greedy:
        assert token == Table(5, seed).logits(beginning).argmax()
        beginning.append(token)
    assert greedy[-1] == END or len(greedy) == 6


def test_a_batch_goes_on_until_its_last_sequence_has_ended():
    alone = [token_by_token(Only(Table(4, 3, rows=8), row), torch.tensor([0]), END, 12)[0].tolist() for row in range(8)]
    together = token_by_token(Table(4, 3, rows=8), torch.zeros(8, dtype=torch.int64), END, 12)
    longest = max(map(len, alone))
    assert len({len(row) for row in alone}) > 1
    assert together.tolist() == [row + [END] * (longest - len(row)) for row in alone]


class Only:
    """One row of a table."""

    def __init__(self, table, row):
        table.written = [table.written[row]]
        self.table = table

    def step(self, last):
        return self.table.step(last)


def test_nothing_is_written_where_nothing_may_be():
    assert token_by_token(Table(3, 0), torch.tensor([0]), END, 0).shape == (1, 0)
    assert beam_search(Table(3, 0), torch.tensor([0]), END, 0) == []


def test_tokens_are_chosen_as_one_says():
    written = token_by_token(Table(4, 0), torch.tensor([0]), END, 5, lambda logits: torch.full((len(logits),), 3))
    assert written.tolist() == [[3, 3, 3, 3, 3]]


def test_the_likeliest_go_on_from_any_row():
    running = [Answer((5,), -1.0), Answer((6,), -1.1)]
    logits = torch.tensor([[0.1, 0.0, -20.0], [-20.0, -20.0, 0.0]])
    best = likeliest(running, logits, 3)
    assert [(row, answer.ids) for row, answer in best] == [(1, (6, 2)), (0, (5, 0)), (0, (5, 1))]
    assert math.isclose(best[1][1].score, -1 - math.log(1 + math.exp(-0.1)), abs_tol=1e-5)
