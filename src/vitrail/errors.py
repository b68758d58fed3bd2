"""Every exception that Vitrail raises on purpose.

VitrailError                 exit status 1: something failed
├── TrainingDiverged         a loss or gradient is no longer finite
├── Interrupted              a signal asked to stop; exit status 128 + the signal's number
└── UserError                exit status 2: a mistake that a person can mend; one sentence says how
    ├── SettingError         a setting that makes no sense, alone or with the others
    ├── UnknownName          no such model, task, format …; the nearest names are offered
    ├── DataError            a data set, table or class list that cannot be used
    │   └── UnreadableImage  one image that cannot be decoded
    │       └── TooManyPixels  one that is larger than images may be
    ├── RunError             a run's folder: missing, incomplete, already there, or of a newer version
    ├── CheckpointError      a file of weights: damaged, unsafe, or of another model
    └── DiskFull             no room left for what must be written
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class VitrailError(Exception):
    """Base of all: its text is for people, its ``exit_status`` for the shell."""

    exit_status = 1


class TrainingDiverged(VitrailError):
    """The loss or a gradient became NaN or infinite."""


class Interrupted(VitrailError):
    """A signal asked the program to stop, and what matters was saved first."""

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.exit_status = 128 + signal_number


class UserError(VitrailError):
    """A mistake in what was asked for: named in one sentence together with the remedy."""

    exit_status = 2


class SettingError(UserError):
    """A setting that makes no sense, alone or together with the others."""


class UnknownName(UserError):
    """A name that is in none of the tables; the message offers the nearest ones."""

    def __init__(self, what: str, name: str, known: Iterable[str]) -> None:
        names = sorted(known)
        nearest = difflib.get_close_matches(name, names, n=3, cutoff=0.4)
        *others, last = nearest or [""]
        either = f"{', '.join(others)} or {last}" if others else last
        hint = f"did you mean {either}?" if nearest else f"known are: {', '.join(names)}."
        super().__init__(f"there is no {what} called '{name}'; {hint}")


class DataError(UserError):
    """A data set, table or class list that cannot be used as it is."""


class UnreadableImage(DataError):
    """One image that cannot be decoded: damaged, empty, too large, or no image at all."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"cannot read image {name}: {reason}")
        self.name = name
        self.reason = reason

    def __reduce__(self) -> tuple[type, tuple[str, str]]:  # so that it crosses from a worker process
        return type(self), (self.name, self.reason)


class TooManyPixels(UnreadableImage):
    """One image with more pixels than are decoded."""


class RunError(UserError):
    """A run's folder that is missing, incomplete, already there, or written by a newer version."""


class CheckpointError(UserError):
    """A file of weights that is damaged, would run code when opened, or belongs to another model."""


class DiskFull(UserError):
    """The disk has no room for what must be written; nothing half-written is left behind."""
