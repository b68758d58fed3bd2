"""What waits is computed together, in order, and no one's trouble is another's."""

from __future__ import annotations

import threading
import time
from concurrent.futures import CancelledError

import pytest

from vitrail.serve.batching import Batcher


class Recorder:
    """Work that notes its batches, and can be held up."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.begun = threading.Event()
        self.go_on = threading.Event()
        self.go_on.set()

    def square(self, numbers):
        self.batches.append(list(numbers))
        self.begun.set()
        assert self.go_on.wait(10)
        return [number * number for number in numbers]

    def hold(self, batcher):
        """Keep the thread busy with a batch of its own until ``go_on``."""
        self.go_on.clear()
        first = batcher.submit(self.square, -1)
        assert self.begun.wait(10)
        return first


@pytest.fixture
def work():
    recorder = Recorder()
    yield recorder
    recorder.go_on.set()


def test_what_waits_while_the_thread_is_busy_is_computed_at_once_in_order(work):
    batcher = Batcher(size=4, delay=0)
    first = work.hold(batcher)
    futures = [batcher.submit(work.square, number) for number in range(10)]
    assert len(batcher) == 10
    work.go_on.set()
    assert [future.result(10) for future in futures] == [number * number for number in range(10)]
    assert first.result(10) == 1
    assert work.batches == [[-1], [0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert len(batcher) == 0
    batcher.close()


def test_a_lone_input_waits_for_the_delay_and_a_full_batch_does_not(work):
    batcher = Batcher(size=2, delay=0.3)
    began = time.monotonic()
    alone = batcher.submit(work.square, 3)
    assert alone.result(10) == 9
    assert time.monotonic() - began >= 0.29
    endless = Batcher(size=2, delay=600)
    futures = [endless.submit(work.square, number) for number in (4, 5)]
    assert [future.result(10) for future in futures] == [16, 25]
    batcher.close()
    endless.close()


def test_different_work_is_not_mixed_and_the_oldest_comes_first(work):
    batcher = Batcher(size=8, delay=0)
    work.hold(batcher)
    other = Recorder()
    order = []
    for number in range(3):
        batcher.submit(work.square, number).add_done_callback(lambda future: order.append(future.result()))
        batcher.submit(other.square, 10 + number)
    work.go_on.set()
    batcher.close()
    assert work.batches == [[-1], [0, 1, 2]]
    assert other.batches == [[10, 11, 12]]
    assert order == [0, 1, 4]


def test_what_is_cancelled_while_it_waits_is_never_computed(work):
    batcher = Batcher(size=8, delay=0)
    work.hold(batcher)
    kept, dropped = batcher.submit(work.square, 5), batcher.submit(work.square, 6)
    assert dropped.cancel()
    work.go_on.set()
    assert kept.result(10) == 25
    with pytest.raises(CancelledError):
        dropped.result(10)
    batcher.close()
    assert work.batches == [[-1], [5]]


def test_an_exception_goes_to_the_whole_batch_and_the_thread_lives_on(work):
    def fail(numbers):
        raise RuntimeError("no memory")

    batcher = Batcher(size=8, delay=0)
    work.hold(batcher)
    futures = [batcher.submit(fail, number) for number in range(2)]
    work.go_on.set()
    for future in futures:
        with pytest.raises(RuntimeError, match="no memory"):
            future.result(10)
    assert batcher.submit(work.square, 7).result(10) == 49
    batcher.close()


def test_too_few_answers_are_an_error_and_not_a_wait_for_ever(work):
    batcher = Batcher(size=8, delay=0)
    work.hold(batcher)
    futures = [batcher.submit(lambda numbers: numbers[:1], 1)]
    short = lambda numbers: [0]  # noqa: E731 - one object for both
    futures = [batcher.submit(short, number) for number in range(2)]
    work.go_on.set()
    assert futures[0].result(10) == 0
    with pytest.raises(ValueError, match="zip"):
        futures[1].result(10)
    batcher.close()


def test_closing_computes_what_waits_and_takes_nothing_more(work):
    batcher = Batcher(size=2, delay=600)
    future = batcher.submit(work.square, 8)
    batcher.close()
    assert future.result(0) == 64
    with pytest.raises(RuntimeError, match="closed"):
        batcher.submit(work.square, 9)


def test_each_batch_is_told_with_its_size(work):
    told = []
    batcher = Batcher(size=3, delay=0, watch=lambda inputs, seconds: told.append((inputs, seconds >= 0)))
    work.hold(batcher)
    for number in range(4):
        batcher.submit(work.square, number)
    work.go_on.set()
    batcher.close()
    assert told == [(1, True), (3, True), (1, True)]
