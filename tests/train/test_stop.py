"""The first Ctrl-C or SIGTERM is a question, the second one acts; afterwards all is as it was before."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest

from vitrail.train.stop import StopRequest, stop_requests

BOTH = [signal.SIGINT, signal.SIGTERM]


def handlers() -> list[object]:
    return [signal.getsignal(number) for number in BOTH]


@pytest.mark.parametrize("number", BOTH)
def test_the_first_signal_is_only_noted(number: signal.Signals) -> None:
    before = handlers()
    with stop_requests() as request:
        assert not request
        signal.raise_signal(number)
        assert request
        assert request.signal_number == number
    assert handlers() == before


@pytest.mark.parametrize("number", BOTH)
def test_the_second_one_acts_as_always(number: signal.Signals) -> None:
    acted = []
    before = signal.signal(number, lambda *_: acted.append(number))
    try:
        with stop_requests() as request:
            signal.raise_signal(number)
            assert (bool(request), acted) == (True, [])
            signal.raise_signal(number)
            assert acted == [number]
    finally:
        signal.signal(number, before)


def test_one_after_the_other_the_last_one_counts() -> None:
    with stop_requests() as request:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
        assert request.signal_number == signal.SIGTERM


def test_an_error_inside_puts_everything_back() -> None:
    before = handlers()

    def fail() -> None:
        with stop_requests():
            signal.raise_signal(signal.SIGTERM)
            raise ValueError("inside")

    with pytest.raises(ValueError, match="inside"):
        fail()
    assert handlers() == before


def test_one_request_knows_nothing_of_another() -> None:
    with stop_requests() as request:
        signal.raise_signal(signal.SIGINT)
        assert request
        assert not StopRequest()
    with stop_requests() as again:
        assert not again


def test_in_another_thread_nothing_is_caught() -> None:
    seen: list[tuple[bool, bool]] = []

    def work() -> None:
        with stop_requests() as request:
            seen.append((bool(request), handlers() == before))

    before = handlers()
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(False, True)]


@pytest.mark.skipif(os.name != "posix", reason="exit by a signal is POSIX's")
def test_a_second_sigterm_ends_a_process_that_does_not_listen() -> None:
    program = (
        "import signal; from vitrail.train.stop import stop_requests\n"
        "with stop_requests():\n"
        "    signal.raise_signal(signal.SIGTERM); print('still here', flush=True)\n"
        "    signal.raise_signal(signal.SIGTERM); print('never')"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (-signal.SIGTERM, "still here\n")
