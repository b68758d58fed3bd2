"""Changes to a model, or to its preprocessing, as a person writes them: ``patch_size=8 pool=map``."""

from __future__ import annotations

import io
from contextlib import redirect_stderr
from dataclasses import fields
from typing import Any, Literal, cast, get_args, get_origin, get_type_hints

import tyro

from vitrail import models
from vitrail.errors import SettingError


def config_changes(model: str, words: tuple[str, ...]) -> dict[str, Any]:
    """``("patch_size=8", "pool=map")`` as values of the types that the model's config has."""
    config = models.members(model).config
    known = [field.name for field in fields(config)]
    unknown = [name for word in words if (name := word.partition("=")[0]) not in known and "=" in word]
    if unknown:
        raise SettingError(f"the model '{model}' has no setting '{unknown[0]}'; it has: {', '.join(known)}.")
    return parsed_changes(config, words, "--config")


def parsed_changes(kind: type, words: tuple[str, ...], flag: str) -> dict[str, Any]:
    """``name=value`` words as values of the types that the fields of the dataclass ``kind`` have."""
    known = [field.name for field in fields(kind)]
    changes = {}
    if words and not known:
        raise SettingError(f"there is nothing that {flag} could set here; leave it out.")
    example = "patch_size=8" if "patch_size" in known else f"{next(iter(known), '')}=…"
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise SettingError(f"{flag} takes name=value, such as {example}, not '{word}'.")
        if name not in known:
            raise SettingError(f"{flag} has no '{name}'; it has: {', '.join(known)}.")
        changes[name] = _parsed(kind, name, value, flag)
    return changes


def _parsed(owner: type, name: str, value: str, flag: str) -> Any:
    """``value`` as the type of the dataclass's field, whatever it is: numbers, true and false, words of a Literal."""
    kind, positional = get_type_hints(owner)[name], cast(Any, tyro.conf.Positional)
    words = [word.capitalize() if word in ("true", "false", "none") else word for word in value.split(",")]
    try:
        with redirect_stderr(io.StringIO()):  # tyro explains itself there, in terms of its own
            answer = tyro.cli(positional[kind], args=words)
    except SystemExit as error:
        raise SettingError(f"{flag} {name}={value} makes no sense; {name} must be {_in_words(kind)}.") from error
    return list(answer) if isinstance(answer, tuple) else answer


def _in_words(kind: Any) -> str:
    """What values a type has, for people."""
    if get_origin(kind) is Literal:
        return f"one of {', '.join(get_args(kind))}"
    if get_origin(kind) is tuple:
        return f"{'whole ' * (int in get_args(kind))}numbers with commas between"
    return {int: "a whole number", float: "a number", bool: "true or false"}.get(kind, "a number or none")
