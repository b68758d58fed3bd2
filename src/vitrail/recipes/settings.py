"""What the settings of all recipes share: flags that may be left out, and what their numbers may be."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple, TypeVar

import tyro

from vitrail.errors import SettingError

T = TypeVar("T")

# A flag without a value of its own: its text says what happens where it is left out.
LeftOpen = Annotated[T | None, tyro.conf.arg(help_behavior_hint="(optional)")]

# Flags of several words.
Changes = Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME=VALUE...", help_behavior_hint="(optional)")]
Images = Annotated[tuple[str, ...], tyro.conf.arg(metavar="IMAGE...", help_behavior_hint="(required)")]
Names = Annotated[tuple[str, ...], tyro.conf.arg(metavar="[NAME...]", help_behavior_hint="(optional)")]


@dataclass(frozen=True)
class Stated:
    """What is to be known of the weights; mostly their own files say it."""

    image_size: LeftOpen[int] = None
    """Side of the images in pixels, where it is to be another than the weights were made for."""
    layout: LeftOpen[str] = None
    """Whose names the tensors of a file have: timm, transformers, torchvision, google, paper …"""
    model: LeftOpen[str] = None
    """What model a file is: a name from `vitrail models`."""
    config: Changes = ()
    """How a file differs from that model, such as: patch_size=8 image_size=64,64."""
    preprocess: Changes = ()
    """How images are prepared for a file that does not say it, such as: mean=0.5 std=0.5 resize=squash."""
    labels: LeftOpen[str] = None
    """Names of the classes in the order of the scores, with commas between; or a file with one in each line."""


UNSTATED = Stated()


class Range(NamedTuple):
    """Which numbers make sense, in words and as a test; NaN passes none."""

    words: str
    holds: Callable[[float], bool]


AT_LEAST_1 = Range("at least 1", lambda number: number >= 1)
NOT_NEGATIVE = Range("a number from 0 upwards", lambda number: 0 <= number < math.inf)
POSITIVE = Range("a number above 0", lambda number: 0 < number < math.inf)
FACTOR = Range("above 0 and at most 1", lambda number: 0 < number <= 1)
BELOW_1 = Range("at least 0 and below 1", lambda number: 0 <= number < 1)
PORT = Range("from 0 to 65535", lambda number: 0 <= number <= 65_535)
SHARE = Range("from 0 to 1", lambda number: 0 <= number <= 1)

NUMBERS: dict[str, Range] = {
    "accumulate": AT_LEAST_1,
    "batch_delay": NOT_NEGATIVE,
    "beams": AT_LEAST_1,
    "beta2": BELOW_1,
    "batch_size": AT_LEAST_1,
    "clip": NOT_NEGATIVE,
    "context": AT_LEAST_1,
    "count": AT_LEAST_1,
    "cutmix": NOT_NEGATIVE,
    "ema": BELOW_1,
    "epochs": AT_LEAST_1,
    "image_size": AT_LEAST_1,
    "images_per_request": AT_LEAST_1,
    "label_smoothing": BELOW_1,
    "layer_decay": FACTOR,
    "freeze": NOT_NEGATIVE,
    "learning_rate": POSITIVE,
    "length": AT_LEAST_1,
    "lora_rank": AT_LEAST_1,
    "max_unreadable": SHARE,
    "merge": NOT_NEGATIVE,
    "mixup": NOT_NEGATIVE,
    "pack_tokens": AT_LEAST_1,
    "patience": NOT_NEGATIVE,
    "pixels": AT_LEAST_1,
    "port": PORT,
    "queue": AT_LEAST_1,
    "save_seconds": NOT_NEGATIVE,
    "seconds": POSITIVE,
    "seed": NOT_NEGATIVE,
    "share": FACTOR,
    "steps": AT_LEAST_1,
    "temperature": NOT_NEGATIVE,
    "timeout": POSITIVE,
    "tokens": AT_LEAST_1,
    "top": AT_LEAST_1,
    "top_k": AT_LEAST_1,
    "top_p": FACTOR,
    "upload_megabytes": POSITIVE,
    "vocabulary": AT_LEAST_1,
    "warmup_epochs": NOT_NEGATIVE,
    "warmup_share": SHARE,
    "weight_decay": NOT_NEGATIVE,
    "workers": NOT_NEGATIVE,
}


def check_numbers(settings: Any) -> None:
    """Raises :class:`SettingError` for the first number among a recipe's settings that makes no sense."""
    for name, allowed in NUMBERS.items():
        number = getattr(settings, name, None)
        if number is not None and not allowed.holds(number):
            raise SettingError(f"--{name.replace('_', '-')} must be {allowed.words}, not {number}.")
