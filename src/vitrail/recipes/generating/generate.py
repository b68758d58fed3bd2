"""Generate: a model goes on with a text, answers one, or paints images, pixel by pixel."""

from __future__ import annotations

import importlib
import sys
from typing import Any

from vitrail.errors import DataError, SettingError
from vitrail.recipes.generating.settings import Generate
from vitrail.recipes.opened import as_stated
from vitrail.recipes.settings import Stated, check_numbers
from vitrail.tasks.learner import Learner
from vitrail.weights import saved, text
from vitrail.weights.load import load

# What generates, by what the model was trained with: a module and its function(settings, learner).
GENERATORS = {
    "next-token": "vitrail.recipes.generating.text:generate_text",
    "masked-token": "vitrail.recipes.generating.masked:fill_gaps",
    "span": "vitrail.recipes.generating.sequence:generate_sequence",
    "next-pixel": "vitrail.recipes.generating.images:generate_images",
}


def generate(settings: Generate) -> list[dict[str, Any]]:
    """What was generated, one entry each; also printed or drawn, as the model's kind is, unless ``--json``.

    Raises :class:`SettingError` for a model that was not trained to generate.
    """
    check_numbers(settings)
    learner = open_learner(settings)
    if learner.name not in GENERATORS:
        raise SettingError(
            f"{settings.run} was trained for {learner.name} and generates nothing; what does is trained with "
            f"`vitrail pretrain DATA --objective {'|'.join(GENERATORS)}`."
        )
    module, _, function = GENERATORS[learner.name].partition(":")
    answer: list[dict[str, Any]] = getattr(importlib.import_module(module), function)(settings, learner)
    return answer


def open_learner(settings: Generate) -> Learner:
    """The run's, or published weights with the part that predicts; in evaluation mode, on the CPU."""
    reference, tokenizer = settings.run, settings.tokenizer
    if saved.is_ours(reference, settings.layout):
        if tokenizer is not None:
            raise SettingError(f"{reference} has its own tokenizer; leave out --tokenizer.")
        return saved.load(reference)
    stated = as_stated(Stated(layout=settings.layout, model=settings.model, config=settings.config))
    if text.is_text(reference, settings.model):
        return text.load(reference, tokenizer=tokenizer, **stated)
    return load(reference, **stated)


def read_prompt(settings: Generate) -> str:
    """The prompt that was given, on standard input where it is ``-``.

    Raises :class:`SettingError` where none is, or images are; :class:`DataError` for one that is not UTF-8.
    """
    if settings.images:
        raise SettingError(f"{settings.run} reads text, not images; give it a --prompt.")
    if settings.prompt is None:
        raise SettingError(f'{settings.run} needs a text to go on from: give one with --prompt "...", or --prompt -.')
    if settings.prompt != "-":
        return settings.prompt
    try:
        return sys.stdin.buffer.read().decode()
    except UnicodeDecodeError as error:
        raise DataError("the prompt on standard input is not UTF-8 text; convert it first.") from error
