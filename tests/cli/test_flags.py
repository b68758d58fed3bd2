from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from vitrail.cli.flags import parsed


@dataclass(frozen=True)
class Inner:
    """Settings of a part."""

    depth: int = 3
    """How many there are, told in a sentence that
    has two lines."""


@dataclass(frozen=True)
class Settings:
    """A command for a test.

    Examples:
      vitrail command --size 3
    """

    size: int = 1
    """A sentence that ends
    `here` and another; it has
    (with all that is in it) three lines."""
    kinds: str = "a"
    """What there is:
    - a, the first;
    - b."""
    inner: Inner = field(default_factory=Inner)


def test_flags_become_settings():
    assert parsed(Settings, "command", ["--size", "5", "--depth", "2"]) == Settings(5, "a", Inner(2))


def test_texts_are_broken_where_the_terminal_ends(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as left:
        parsed(Settings, "command", ["--help"])
    assert left.value.code == 0
    said = capsys.readouterr().out
    assert said.startswith("usage: vitrail command ")
    assert "\nExamples:\n  vitrail command --size 3\n" in said
    assert "A sentence that ends `here` and another; it has (with all that is in it) three lines. (default: 1)" in said
    assert "How many there are, told in a sentence that has two lines. (default: 3)" in said
    starts = [line.strip("│ ") for line in said.splitlines()]
    assert {"- a, the first;", "- b. (default: a)"} <= set(starts)


def test_what_is_no_flag_ends_with_status_2(capsys):
    with pytest.raises(SystemExit) as left:
        parsed(Settings, "command", ["--sise", "3"])
    assert left.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "--size" in captured.err
