"""Batches of inputs: the n-th is a pure function of (seed, n), every row comes once, and rows are filled up."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

from vitrail.data.text.rows import IGNORED, EvaluationRows, Row, Rows, TrainingRows
from vitrail.errors import SettingError


def rows(lengths: list[int], per_token: bool = False) -> Rows:
    """Row i has ``lengths[i]`` tokens, all of them i + 1."""
    made = [
        Row(
            number,
            f"row {number}",
            np.full(length, number + 1, np.int32),
            np.ones(length, np.int8),
            np.full(length, number) if per_token else np.array(number % 2),
        )
        for number, length in enumerate(lengths)
    ]
    return Rows(made, 0, pad=0, per_token=per_token)


def test_rows_are_filled_up_and_masked() -> None:
    batch = rows([2, 4, 1], per_token=True).batch([0, 2])
    assert batch.ids.tolist() == [[1, 1], [3, 0]]
    assert batch.segments.tolist() == [[1, 1], [1, 0]]
    assert batch.mask.tolist() == [[True, True], [True, False]]
    assert batch.labels.tolist() == [[0, 0], [2, IGNORED]]
    assert batch.names == ("row 0", "row 2")
    assert rows([3, 3]).batch([0, 1]).mask is None
    assert rows([3, 3]).batch([0, 1]).labels.tolist() == [0, 1]


def test_rows_without_labels() -> None:
    unlabelled = Rows([Row(0, "x", np.ones(2, np.int32), np.zeros(2, np.int8))], 0, pad=0)
    assert unlabelled.batch([0]).labels is None


def numbers(batches: TrainingRows, steps: range) -> list[list[int]]:
    return [(batches[step].ids[:, 0] - 1).tolist() for step in steps]


LENGTHS = np.random.default_rng(0).integers(1, 50, size=203).tolist()


def test_every_epoch_has_every_row_once_in_another_order() -> None:
    batches = TrainingRows(rows(LENGTHS), 4, seed=3)
    assert batches.steps_per_epoch == 50
    first, second = numbers(batches, range(50)), numbers(batches, range(50, 100))
    for epoch in (first, second):
        assert max(Counter(n for batch in epoch for n in batch).values()) == 1
    assert first != second
    assert numbers(TrainingRows(rows(LENGTHS), 4, seed=3), range(50)) == first
    assert numbers(TrainingRows(rows(LENGTHS), 4, seed=4), range(50)) != first


def test_rows_of_about_equal_length_come_together() -> None:
    batches = TrainingRows(rows(LENGTHS), 4, seed=3)
    filled = sum(batches[step].ids.numel() for step in range(50))
    assert filled < 1.15 * sum(LENGTHS)  # by chance alone it would be about 1.6


def test_processes_share_each_batch() -> None:
    whole = TrainingRows(rows(LENGTHS), 4, seed=3)
    parts = [TrainingRows(rows(LENGTHS), 4, seed=3, rank=rank, world=2) for rank in range(2)]
    for step in (0, 17, 60):
        together = [n for part in parts for n in numbers(part, range(step, step + 1))[0]]
        assert sorted(together) == sorted(numbers(whole, range(step, step + 1))[0])
        draws = torch.cat([part[step].draws for part in parts])
        assert sorted(draws.tolist()) == sorted(whole[step].draws.tolist())


def test_chances_draw_some_rows_more_often() -> None:
    chances = np.full(200, 0.1 / 190)
    chances[:10] = 0.09
    batches = TrainingRows(rows(LENGTHS[:200]), 4, chances=chances)
    drawn = [n for batch in numbers(batches, range(200)) for n in batch]
    assert 0.85 < np.mean([n < 10 for n in drawn]) < 0.95


def test_batches_that_cannot_be() -> None:
    with pytest.raises(SettingError, match="larger than the 3 inputs"):
        TrainingRows(rows([1, 1, 1]), 4)
    with pytest.raises(SettingError, match="does not divide into 2"):
        TrainingRows(rows([1, 1, 1]), 3, world=2)


@pytest.mark.parametrize("world", [1, 2, 3])
def test_evaluation_sees_every_row_and_all_processes_see_as_many(world: int) -> None:
    of_rank = [EvaluationRows(rows(LENGTHS), 8, rank, world) for rank in range(world)]
    assert len({len(batches) for batches in of_rank}) == 1
    seen = []
    for batches in of_rank:
        for step in range(len(batches)):
            batch, found = batches[step]
            assert (batch.ids[:, 0] - 1).tolist() == found
            seen += found
    assert set(seen) == set(range(203))
    assert len(seen) == -(-203 // world) * world


def test_more_processes_than_rows() -> None:
    seen = [EvaluationRows(rows([2]), 8, rank, 3)[0][1] for rank in range(3)]
    assert seen == [[0], [0], [0]]
