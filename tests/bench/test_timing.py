import gc

import numpy as np
import pytest
import torch

from vitrail.bench import timing
from vitrail.bench.timing import Spread, in_turns, seconds_of, spread, undisturbed

CPU = torch.device("cpu")


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still unless work moves it on: ``clock(seconds)`` is work of so many seconds."""
    now = [0.0]
    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])

    def work(seconds):
        def pass_by():
            now[0] += seconds

        return pass_by

    return work


def test_median_and_quartiles_are_those_of_numpy():
    values = np.random.default_rng(0).exponential(size=37)
    found = spread(list(values))
    assert (found.median, found.repeats) == (np.median(values), 37)
    assert (found.low, found.high) == (np.quantile(values, 0.25), np.quantile(values, 0.75))
    assert spread([2.0]) == Spread(2.0, 2.0, 2.0, 1)


def test_work_is_repeated_for_so_many_seconds(clock):
    assert seconds_of(clock(0.5), 10, CPU) == [0.5] * 20


def test_slow_work_is_repeated_a_few_times(clock):
    assert seconds_of(clock(100), 10, CPU) == [100] * timing.LEAST
    assert seconds_of(clock(100), 10, CPU, least=2) == [100, 100]


def test_warm_up_is_not_counted(clock):
    slow, fast, calls = clock(60), clock(1), []

    def work():
        calls.append(1)
        (slow if len(calls) <= timing.WARM_UP else fast)()

    assert seconds_of(work, 7, CPU) == [1] * 7


def test_works_take_turns_and_none_is_always_the_first(clock):
    order, second = [], clock(1)
    works = {name: (lambda name=name: (order.append(name), second())) for name in "abc"}
    times = in_turns(works, 4, CPU)
    assert [len(each) for each in times.values()] == [5, 5, 5]  # at least five, though four seconds have passed
    rounds = ["".join(order[first : first + 3]) for first in range(3 * timing.WARM_UP, len(order), 3)]
    assert rounds == ["abc", "bca", "cab", "abc", "bca"]


def test_calls_on_an_accelerator_are_queued_and_share_the_turn(clock, monkeypatch):
    waits = []
    monkeypatch.setattr(timing, "wait_for", waits.append)
    cuda = torch.device("cuda")
    times = seconds_of(clock(0.0009765625), 1, cuda)  # 2 ** -10, so that sums are exact
    assert set(times) == {0.0009765625}
    assert len(waits) == timing.WARM_UP + len(times)
    turn = 52  # calls that take at least 0.05 s
    assert len(times) == np.ceil(1024 / turn)
    assert len(seconds_of(clock(0.0009765625), 1, cuda, one_by_one=True)) == 1024


def test_garbage_is_collected_before_and_not_meanwhile():
    with undisturbed():
        assert not gc.isenabled()
    assert gc.isenabled()
    gc.disable()
    try:
        with undisturbed():
            pass
        assert not gc.isenabled()  # as it was
    finally:
        gc.enable()
