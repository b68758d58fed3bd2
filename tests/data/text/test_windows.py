"""Batches of text depend on the seed and their number, on nothing else."""

import numpy as np
import pytest
import torch

from vitrail.data.text.windows import EvaluationWindows, TrainingWindows
from vitrail.errors import DataError, SettingError

IDS = np.arange(100, dtype=np.int32)


def test_a_window_is_a_piece_of_the_text():
    batch = TrainingWindows(IDS, 7, 5)[3]
    assert batch.ids.shape == (5, 7)
    assert batch.ids.dtype == torch.int64
    assert (batch.ids.diff(dim=1) == 1).all()
    assert batch.names[0] == f"tokens {batch.ids[0, 0]}-{batch.ids[0, -1]}"
    assert (batch.step, len(batch), len(batch.draws.unique())) == (3, 5, 5)


def test_windows_begin_everywhere():
    windows = TrainingWindows(IDS, 98, 10)
    starts = {int(row[0]) for step in range(10) for row in windows[step].ids}
    assert starts == {0, 1, 2}


def test_a_batch_is_determined_by_seed_and_number():
    one, same, other = (TrainingWindows(IDS, 7, 5, seed)[2] for seed in (0, 0, 1))
    assert torch.equal(one.ids, same.ids)
    assert torch.equal(one.draws, same.draws)
    assert not torch.equal(one.ids, other.ids)
    assert not torch.equal(one.ids, TrainingWindows(IDS, 7, 5, 0)[3].ids)


@pytest.mark.parametrize("world", [2, 3])
def test_processes_share_the_rows_of_the_same_batch(world):
    whole = TrainingWindows(IDS, 7, 6)[4]
    parts = [TrainingWindows(IDS, 7, 6, rank=rank, world=world)[4] for rank in range(world)]
    assert torch.equal(torch.cat([part.ids for part in parts]), whole.ids)
    assert torch.equal(torch.cat([part.draws for part in parts]), whole.draws)


def test_an_epoch_holds_about_as_many_tokens_as_there_are():
    assert TrainingWindows(IDS, 7, 5).steps_per_epoch == 2
    assert TrainingWindows(IDS, 50, 5).steps_per_epoch == 1


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_evaluation_sees_every_whole_window_once(world, batch_size):
    seen = []
    for rank in range(world):
        windows = EvaluationWindows(IDS, 7, batch_size, rank, world)
        seen += [row.tolist() for step in range(len(windows)) for row in windows[step].ids]
    assert sorted(seen) == [list(range(start, start + 7)) for start in range(0, 98, 7)]


def test_evaluation_of_a_few_windows_is_spread_over_the_text():
    windows = EvaluationWindows(IDS, 7, 10, most=3)
    assert windows[0].ids[:, 0].tolist() == [0, 42, 91]


def test_draws_of_evaluation_are_always_the_same():
    assert EvaluationWindows(IDS, 7, 3)[1].draws.tolist() == [3, 4, 5]


def test_text_shorter_than_a_window_is_refused():
    for kind in (TrainingWindows, EvaluationWindows):
        with pytest.raises(DataError, match="100 tokens, fewer than the 101 of a window"):
            kind(IDS, 101, 2)


def test_a_batch_that_does_not_divide_is_refused():
    with pytest.raises(SettingError, match="5 does not divide into 2 equal parts"):
        TrainingWindows(IDS, 7, 5, world=2)


def test_parts_of_a_batch_make_it_up():
    batch = TrainingWindows(IDS, 7, 5)[0]
    parts = list(batch.split(2))
    assert [len(part) for part in parts] == [3, 2]
    assert torch.equal(torch.cat([part.ids for part in parts]), batch.ids)
    assert torch.equal(torch.cat([part.draws for part in parts]), batch.draws)
    assert sum((part.names for part in parts), ()) == batch.names
    moved = batch.to(torch.device("cpu"))
    assert torch.equal(moved.ids, batch.ids)
    assert moved.mask is None
