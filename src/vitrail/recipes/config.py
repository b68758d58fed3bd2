"""Changes to a model as a person writes them: ``patch_size=8 pool=map``."""

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
    config = models.FAMILIES[models.family(model)].config
    known = [field.name for field in fields(config)]
    changes = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise SettingError(f"--config takes name=value, such as patch_size=8, not '{word}'.")
        if name not in known:
            raise SettingError(f"the model '{model}' has no setting '{name}'; it has: {', '.join(known)}.")
        changes[name] = _parsed(config, name, value)
    return changes


def _parsed(config: type, name: str, value: str) -> Any:
    """``value`` as the type of the config's field, whatever it is: numbers, true and false, words of a Literal."""
    kind, positional = get_type_hints(config)[name], cast(Any, tyro.conf.Positional)
    words = [word.capitalize() if word in ("true", "false", "none") else word for word in value.split(",")]
    try:
        with redirect_stderr(io.StringIO()):  # tyro explains itself there, in terms of its own
            answer = tyro.cli(positional[kind], args=words)
    except SystemExit as error:
        raise SettingError(f"--config {name}={value} makes no sense; {name} must be {_in_words(kind)}.") from error
    return list(answer) if isinstance(answer, tuple) else answer


def _in_words(kind: Any) -> str:
    """What values a type has, for people."""
    if get_origin(kind) is Literal:
        return f"one of {', '.join(get_args(kind))}"
    if get_origin(kind) is tuple:
        return "whole numbers with commas between"
    return {int: "a whole number", float: "a number", bool: "true or false"}.get(kind, "a number or none")
