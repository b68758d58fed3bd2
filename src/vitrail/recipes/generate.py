"""Generate: a model goes on with a text, answers one, or paints images, pixel by pixel."""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from tyro.conf import Positional

from vitrail.errors import DataError, SettingError
from vitrail.recipes.opened import as_stated
from vitrail.recipes.settings import Changes, LeftOpen, Stated, check_numbers
from vitrail.tasks.learner import Learner
from vitrail.train.precision import Precision
from vitrail.weights import saved, text
from vitrail.weights.load import load

Givens = Annotated[tuple[str, ...], tyro.conf.arg(metavar="[IMAGE...]", help_behavior_hint="(optional)")]

# What generates, by what the model was trained with: a module and its function(settings, learner).
GENERATORS = {
    "next-token": "vitrail.recipes.generate_text:generate_text",
    "masked-token": "vitrail.recipes.generate_masked:fill_gaps",
    "span": "vitrail.recipes.generate_sequence:generate_sequence",
    "next-pixel": "vitrail.recipes.generate_images:generate_images",
}


@dataclass(frozen=True)
class Generate:
    """Let a model write on from a prompt, fill the gaps of a text, or paint images and complete given ones.

    Examples:
      vitrail generate runs/book-next-token --prompt "It was a dark"
      vitrail generate hf:openai-community/gpt2 --prompt "The meaning of life is" --tokens 50 --top-p 0.9
      echo "Once upon a time" | vitrail generate runs/book-next-token --prompt - --count 3 --json
      vitrail generate runs/book-span --prompt "The <extra_id_0> sat on the <extra_id_1>." --beams 4
      vitrail generate runs/book-masked-token --prompt "The [MASK] sat on the mat."
      vitrail generate runs/photos-next-pixel --count 16 --out sheet.png
      vitrail generate runs/photos-next-pixel cat.jpg dog.jpg --out completed.png
    """

    run: Positional[str]
    """A run's folder; or published weights: hf:ORG/NAME, or a file (with --layout and --model)."""
    images: Positional[Givens] = ()
    """Images whose lower half a model of pixels paints again."""
    prompt: LeftOpen[str] = None
    """The text to go on with; - for standard input."""
    count: int = 1
    """How many to generate: texts of the prompt, images, or completions of each image."""
    tokens: int = 200
    """Most tokens of new text."""
    temperature: LeftOpen[float] = None
    """Below 1 what is likely gets likelier, 0 always takes the likeliest; left out: chosen for the model."""
    top_k: LeftOpen[int] = None
    """Choose among so many of the likeliest tokens only; left out: among all."""
    top_p: LeftOpen[float] = None
    """Choose among the likeliest tokens that together have this probability; left out: among all."""
    beams: int = 1
    """Instead of chance, search for the likeliest answer with so many at a time (models with an encoder)."""
    out: LeftOpen[Path] = None
    """The picture that is written; left out: generated.png."""
    layout: LeftOpen[str] = None
    """Whose names the tensors of a file have, where it does not say so: transformers, openai …"""
    model: LeftOpen[str] = None
    """What model a file is, where it does not say so: a name from `vitrail models`."""
    config: Changes = ()
    """How a file differs from that model, such as: depth=6 context=256."""
    tokenizer: LeftOpen[Path] = None
    """The tokenizer's file or folder, where it does not lie beside the weights."""
    device: str = "auto"
    """cpu, cuda, mps, or auto for the best there is."""
    precision: Precision = "auto"
    """Format of matrix products; auto is bfloat16 where the machine has it."""
    seed: int = 0
    """Another seed gives other texts and images."""
    json: bool = False
    """Print one JSON document, a list with one entry for each text or image."""


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
