"""Ctrl-C and SIGTERM as a question that the training loop asks itself, not an exception that tears it apart."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StopRequest:
    """The signal that asked to stop, or 0."""

    signal_number = 0

    def __bool__(self) -> bool:
        return self.signal_number != 0


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Within the context the first SIGINT or SIGTERM is only noted; a second one acts as it always does."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():  # signals go to the main thread alone
        yield request
        return

    def note(number: int, frame: FrameType | None) -> None:
        request.signal_number = number
        signal.signal(number, before[signal.Signals(number)])

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, note)
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
