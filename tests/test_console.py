"""What people see goes to standard error, from one process only; with and without a terminal."""

from __future__ import annotations

import io
import sys

import pytest

from vitrail import console


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(console, "time", clock)
    return clock


@pytest.fixture(autouse=True)
def _the_only_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)


def test_words_go_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    console.say("one line")
    assert capsys.readouterr() == ("", "one line\n")


@pytest.mark.parametrize(("rank", "spoken"), [("0", "hello\n"), ("1", ""), ("13", "")])
def test_only_the_first_of_many_processes_speaks(
    rank: str, spoken: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], clock: Clock
) -> None:
    monkeypatch.setenv("RANK", rank)
    console.say("hello")
    assert capsys.readouterr().err == spoken
    with console.progress("work", 10) as advance:
        clock.now += 60
        advance(3, "words")
    assert bool(capsys.readouterr().err) == bool(spoken)


def test_without_a_terminal_there_is_a_line_now_and_then(capsys: pytest.CaptureFixture[str], clock: Clock) -> None:
    with console.progress("training", 100) as advance:
        clock.now += 14.9
        advance(10, "loss 3")
        assert capsys.readouterr().err == ""
        clock.now += 0.1  # 15 seconds, 30 steps: two steps a second, 35 seconds for the other 70
        advance(30, "loss 2")
        assert capsys.readouterr() == ("", "training: 30/100, 2.0 step/s, 35 s left loss 2\n")
        clock.now += 10
        advance(60)
        clock.now += 5  # 30 seconds, 90 steps
        advance(90)
        assert capsys.readouterr() == ("", "training: 90/100, 3.0 step/s, 3 s left\n")


def test_the_rate_of_resumed_work_is_that_of_what_is_done_now(capsys: pytest.CaptureFixture[str], clock: Clock) -> None:
    with console.progress("reading", 1000, done=900, unit="image") as advance:
        clock.now += 20
        advance(920)
    assert capsys.readouterr().err == "reading: 920/1000, 1.0 image/s, 80 s left\n"


def test_work_that_does_not_advance_has_no_end(capsys: pytest.CaptureFixture[str], clock: Clock) -> None:
    with console.progress("waiting", 5) as advance:
        clock.now += 20
        advance(0)
    assert capsys.readouterr().err == "waiting: 0/5, 0.0 step/s, inf s left\n"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_on_a_terminal_there_is_a_bar(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with console.progress("training", 10, done=4) as advance:
        advance(7, "loss 0.5")
    drawn = terminal.getvalue()
    assert "training" in drawn
    assert "7/10" in drawn
    assert "step/s loss 0.5" in drawn
    assert capsys.readouterr().out == ""


def test_a_line_said_beside_the_bar_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with console.progress("training", 10):
        console.say("left out: a.png")
    assert "left out: a.png\n" in terminal.getvalue()
