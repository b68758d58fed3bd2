"""The tree of exceptions as it is drawn, their exit statuses, and what a name that is not known is told."""

from __future__ import annotations

import pickle
import re
import signal

import pytest

from vitrail import errors
from vitrail.errors import Interrupted, TrainingDiverged, UnknownName, UnreadableImage, UserError, VitrailError


def drawn_tree() -> dict[str, str]:
    """Each exception in the module's drawing, and the one it hangs on."""
    assert errors.__doc__
    parents: dict[str, str] = {}
    open_branches: list[tuple[int, str]] = []
    for line in errors.__doc__.splitlines():
        match = re.match(r"([│├└─\s]*)([A-Z]\w+)\s{2,}\S", line)
        if match is None:
            continue
        depth, name = len(match[1]), match[2]
        while open_branches and open_branches[-1][0] >= depth:
            open_branches.pop()
        parents[name] = open_branches[-1][1] if open_branches else "Exception"
        open_branches.append((depth, name))
    return parents


def test_the_drawing_is_the_truth() -> None:
    defined = {name: value for name, value in vars(errors).items() if isinstance(value, type)}
    assert drawn_tree() == {
        name: value.__base__.__name__ for name, value in defined.items() if value.__module__ == errors.__name__
    }


def test_exit_statuses() -> None:
    assert VitrailError("").exit_status == 1
    assert TrainingDiverged("").exit_status == 1
    assert UserError("").exit_status == 2
    assert UnreadableImage("a.png", "it is empty").exit_status == 2
    assert Interrupted("", signal.SIGINT).exit_status == 130
    assert Interrupted("", signal.SIGTERM).exit_status == 143


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("vit-b61", "there is no model called 'vit-b61'; did you mean vit-b16?"),
        ("qqq", "there is no model called 'qqq'; known are: resnet-18, vit-b16."),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest_or_with_all(name: str, sentence: str) -> None:
    assert str(UnknownName("model", name, ["vit-b16", "resnet-18"])) == sentence


def test_an_unreadable_image_crosses_between_processes() -> None:
    error = pickle.loads(pickle.dumps(UnreadableImage("a.png", "cut short")))
    assert isinstance(error, UnreadableImage)
    assert (error.name, error.reason, str(error)) == ("a.png", "cut short", "cannot read image a.png: cut short")
