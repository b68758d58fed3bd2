"""A dataclass of settings becomes the flags of a command."""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from dataclasses import is_dataclass
from typing import Annotated, TypeVar, get_type_hints

import tyro
from docstring_parser import parse_from_object

T = TypeVar("T")


def parsed(settings: type[T], word: str, flags: Sequence[str]) -> T:
    """What ``flags`` say; for ``--help``, and for flags that make no sense, the process ends with its answer."""
    let_texts_flow(settings)
    return tyro.cli(
        settings,
        prog=f"vitrail {word}",
        description=inspect.getdoc(settings),  # tyro by itself leaves the examples out
        args=flags,
        config=(
            tyro.conf.DisallowNone,
            tyro.conf.FlagCreatePairsOff,
            tyro.conf.OmitArgPrefixes,
            tyro.conf.PositionalMetavarFromFieldName,
        ),
    )


def let_texts_flow(settings: type) -> None:
    """Join the lines of what is said of each field, but for those that begin with a dash.

    tyro joins them only where they are not indented, and so breaks them in the midst of sentences.
    """
    texts = {field.arg_name: field.description for field in parse_from_object(settings).params}
    hints = get_type_hints(settings, include_extras=True)
    for name, hint in hints.items():
        if is_dataclass(hint):
            let_texts_flow(hint)  # type: ignore[arg-type]
        elif text := texts.get(name):
            hints[name] = Annotated[hint, tyro.conf.arg(help=re.sub(r"\n(?!- )", " ", inspect.cleandoc(text)))]
    settings.__annotations__ = hints
