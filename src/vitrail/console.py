"""What a person sees while work goes on: all of it on standard error, so that standard output stays clean."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

PLAIN_SECONDS = 15.0  # where there is no terminal, one line this often


class Advance(Protocol):
    """Tells a progress bar how far the work is: steps done in all, and a few words such as the loss."""

    def __call__(self, done: int, words: str = "") -> None: ...


def silent() -> bool:
    """Whether this is one of many processes, and not the first: only the first one speaks."""
    return os.environ.get("RANK", "0") != "0"


def say(text: str) -> None:
    """One line for people."""
    if not silent():
        print(text, file=sys.stderr, flush=True)


@contextmanager
def progress(what: str, total: int, *, done: int = 0, unit: str = "step") -> Iterator[Advance]:
    """A bar with rate and time left on a terminal; a plain line now and then where there is none.

    ``done`` is where resumed work starts.
    """
    if silent():
        yield lambda done, words="": None
    elif sys.stderr.isatty():
        with _bar(what, total, done, unit) as advance:
            yield advance
    else:
        yield _plain_lines(what, total, done, unit)


@contextmanager
def _bar(what: str, total: int, start: int, unit: str) -> Iterator[Advance]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
    from rich.table import Column

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=12),
        TextColumn("{task.completed:.0f}/{task.total:.0f}"),
        TimeRemainingColumn(),
        TextColumn("left, {task.fields[rate]}"),
        TextColumn("{task.fields[words]}", table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1)),
    )
    with Progress(*columns, console=Console(stderr=True), expand=True) as bar:
        task = bar.add_task(what, total=total, completed=start, rate="", words="")
        began = time.monotonic()

        def advance(done: int, words: str = "") -> None:
            rate = (done - start) / max(time.monotonic() - began, 1e-9)
            bar.update(task, completed=done, rate=f"{rate:.1f} {unit}/s", words=words)

        yield advance


def _plain_lines(what: str, total: int, start: int, unit: str) -> Advance:
    began = said = time.monotonic()

    def advance(done: int, words: str = "") -> None:
        nonlocal said
        now = time.monotonic()
        if now - said < PLAIN_SECONDS:
            return
        said = now
        rate = (done - start) / (now - began)
        left = (total - done) / rate if rate > 0 else float("inf")
        say(f"{what}: {done}/{total}, {rate:.1f} {unit}/s, {left:.0f} s left {words}".rstrip())

    return advance
