"""Work that waits, done together: one thread takes what is of the same kind, up to a batch's size."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple

Work = Callable[[Sequence[Any]], Sequence[Any]]  # a batch of inputs to as many answers


class Job(NamedTuple):
    """One input that waits for ``work``, since when (seconds, monotonic), and who wants the answer."""

    work: Work
    given: Any
    answer: Future[Any]
    since: float


class Batcher:
    """A thread of its own, in which everything that a model computes is computed.

    What waits for the same ``work`` is computed in one call, in the order in which it came: as soon as ``size`` inputs
    are there, or when the oldest has waited for ``delay`` seconds. An input whose future was cancelled while it waited
    is left out. An exception of ``work`` goes to all whose inputs it had.

    Args:
        size: most inputs of one call.
        delay: seconds.
        watch: told of each call afterwards, its number of inputs and its seconds.
    """

    def __init__(self, size: int, delay: float, watch: Callable[[int, float], None] = lambda inputs, seconds: None):
        self.size = size
        self.delay = delay
        self.watch = watch
        self._waiting: deque[Job] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)
        self._thread.start()

    def __len__(self) -> int:
        """How many inputs wait."""
        return len(self._waiting)

    def submit(self, work: Work, given: Any) -> Future[Any]:
        """Have one input computed; the future may be cancelled until its batch begins."""
        job = Job(work, given, Future(), time.monotonic())
        with self._changed:
            if self._closed:
                raise RuntimeError("this batcher is closed")
            self._waiting.append(job)
            self._changed.notify()
        return job.answer

    def close(self) -> None:
        """Compute what still waits, then end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while jobs := self._next():
            began = time.monotonic()
            _compute(jobs)
            self.watch(len(jobs), time.monotonic() - began)

    def _next(self) -> list[Job]:
        """The next batch, of jobs that are now running; an empty one ends the thread."""
        with self._changed:
            while True:
                self._waiting = deque(job for job in self._waiting if not job.answer.cancelled())
                if not self._waiting:
                    if self._closed:
                        return []
                    self._changed.wait()
                    continue
                oldest = self._waiting[0]
                alike = [job for job in self._waiting if job.work == oldest.work][: self.size]
                left = oldest.since + self.delay - time.monotonic()
                if len(alike) < self.size and left > 0 and not self._closed:
                    self._changed.wait(left)
                    continue
                taken = {id(job) for job in alike}
                self._waiting = deque(job for job in self._waiting if id(job) not in taken)
                if jobs := [job for job in alike if job.answer.set_running_or_notify_cancel()]:
                    return jobs


def _compute(jobs: Sequence[Job]) -> None:
    try:
        answers = jobs[0].work([job.given for job in jobs])
        for job, answer in zip(jobs, answers, strict=True):
            job.answer.set_result(answer)
    except Exception as error:
        for job in jobs:
            if not job.answer.done():
                job.answer.set_exception(error)
