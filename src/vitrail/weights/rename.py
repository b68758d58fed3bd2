"""Key tables at work: tensors under another library's names become ours, and ours theirs, always strictly."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from torch import Tensor

from vitrail.errors import SettingError
from vitrail.models.layout import Layout, Row

HOLE = re.compile(r"\{([+-]\d+)?\}")
COUNTER = "num_batches_tracked"  # of batch norms; older files do not have it, and nothing depends on it


@dataclass
class Difference:
    """Where tensors and the names and shapes that a model wants do not agree; false if they do."""

    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    reshaped: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.missing) + len(self.unexpected) + len(self.reshaped)

    def __str__(self) -> str:
        words = [f"missing {name}" for name in self.missing] + [f"unexpected {name}" for name in self.unexpected]
        return "; ".join(words + self.reshaped)


def compare(wanted: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> Difference:
    """What of ``wanted`` is missing in ``given``, what is there beyond it, and what has another shape."""
    return Difference(
        missing=sorted(wanted.keys() - given.keys()),
        unexpected=sorted(given.keys() - wanted.keys()),
        reshaped=[
            f"{name} is {tuple(given[name].shape)}, not {tuple(wanted[name].shape)}"
            for name in sorted(wanted.keys() & given.keys())
            if wanted[name].shape != given[name].shape
        ],
    )


def to_ours(
    theirs: Mapping[str, Tensor], wanted: Mapping[str, Tensor], layout: Layout, config: Any
) -> tuple[dict[str, Tensor], Difference]:
    """Their tensors under our names, and where they are not just what is ``wanted``.

    Args:
        theirs: the tensors of a file.
        wanted: the ``state_dict()`` of a task, or of a part of it without ``head.``; gives names and shapes.
        layout: whose names they are.
        config: the config of the backbone.
    """
    rows = layout.rows(config)
    given = {name.removeprefix(layout.prefix): tensor for name, tensor in layout.prepare(theirs).items()}
    ours, difference, used = {}, Difference(), set()
    for name, like in wanted.items():
        sources = names_of_theirs(rows, name.removeprefix("backbone."))
        if sources is None:
            difference.missing.append(f"{name}, for which this layout has no name")
            continue
        names, turn = sources
        missing = [each for each in names if each not in given]
        used.update(names)
        if name.endswith(COUNTER) and missing:
            ours[name] = torch.zeros(like.shape, dtype=like.dtype)
        elif missing:
            difference.missing += missing
        else:
            _turned(ours, difference, name, names, turn, given, like)
    has_head = any(name.startswith("head.") for name in wanted)
    difference.unexpected = [
        name for name in given if name not in used and not _without_meaning(name, layout, rows, has_head)
    ]
    return ours, difference


def to_theirs(ours: Mapping[str, Tensor], layout: Layout, config: Any) -> dict[str, Tensor]:
    """The tensors of a task's ``state_dict()`` under their names; bit by bit what `to_ours` makes ours again.

    Raises :class:`SettingError` for a tensor that the layout has no name for.
    """
    rows = layout.rows(config)
    theirs: dict[str, Tensor] = {}
    for name, tensor in ours.items():
        sources = names_of_theirs(rows, name.removeprefix("backbone."))
        if sources is None:
            raise SettingError(f"this layout has no name for {name}, so it cannot hold the model.")
        names, turn = sources
        prefix = "" if name.startswith("head.") else layout.prefix
        parts = (tensor,) * len(names) if tensor.ndim == 0 else turn.to_theirs(tensor)
        theirs |= {prefix + each: part.contiguous() for each, part in zip(names, parts, strict=True)}
    return theirs


def count_fitting(theirs: Mapping[str, Tensor], wanted: Mapping[str, Tensor], layout: Layout, config: Any) -> int:
    """How many of the ``wanted`` tensors of ours there are, in the right shape, under this layout's names."""
    ours, _ = to_ours(theirs, wanted, layout, config)
    return sum(not name.endswith(COUNTER) for name in ours)


def unknown_names(theirs: Mapping[str, Tensor], layout: Layout, config: Any) -> list[str]:
    """Their tensors that this layout has no name for, whatever the number of blocks and of classes."""
    rows = layout.rows(config)
    known = [*layout.ignored]
    for row in rows:
        known += [row.theirs] if isinstance(row.theirs, str) else row.theirs
    given = [name.removeprefix(layout.prefix) for name in layout.prepare(theirs)]
    return [name for name in given if not any(_pattern(template).fullmatch(name) for template in known)]


def names_of_theirs(rows: Sequence[Row], name: str) -> tuple[list[str], Any] | None:
    """Their names for a tensor of ours, and how it turns; None if no row fits."""
    for row in rows:
        if (match := _pattern(row.ours).fullmatch(name)) is not None:
            *numbers, rest = match.groups()
            templates = (row.theirs,) if isinstance(row.theirs, str) else row.theirs
            return [_filled(template, numbers) + rest for template in templates], row.turn
    return None


def _turned(
    ours: dict[str, Tensor],
    difference: Difference,
    name: str,
    names: list[str],
    turn: Any,
    given: Mapping[str, Tensor],
    like: Tensor,
) -> None:
    """Turn one tensor, or note that its shape makes that impossible."""
    try:
        tensor = given[names[0]] if like.ndim == 0 else turn.to_ours(*(given[each] for each in names))
        fits = tensor.shape == like.shape
    except (RuntimeError, IndexError, ValueError):  # a turn is written for the shape that it should have
        fits = False
    if fits:
        ours[name] = tensor.contiguous()
    else:
        shapes = " and ".join(str(tuple(given[each].shape)) for each in names)
        difference.reshaped.append(f"{' + '.join(names)} is {shapes}, ours ({name}) {tuple(like.shape)}")


def _without_meaning(name: str, layout: Layout, rows: Sequence[Row], has_head: bool) -> bool:
    """Whether a tensor of theirs may be left over: one to be ignored, or a classifier's where none is wanted."""
    ignored = [*layout.ignored]
    if not has_head:
        for row in rows:
            if row.ours.startswith("head."):
                ignored += [row.theirs] if isinstance(row.theirs, str) else row.theirs
    return name.endswith(COUNTER) or any(_pattern(template).fullmatch(name) for template in ignored)


@cache
def _pattern(template: str) -> re.Pattern[str]:
    """A row's name as a pattern: a group for each number, and a last one for what follows a module's name."""
    literal = [re.escape(part) for part in HOLE.split(template)[::2]]
    return re.compile(r"(\d+)".join(literal) + r"((?:[./].*)?)")


def _filled(template: str, numbers: Sequence[str]) -> str:
    """``layers.{+1}.norm`` and 2 are ``layers.3.norm``."""
    left = iter(numbers)
    return HOLE.sub(lambda hole: str(int(next(left)) + int(hole[1] or 0)), template)
