"""The released weights that a person need not know by name: what each family's `published.toml` lists."""

from __future__ import annotations

import sys
from functools import cache
from importlib import resources
from typing import Any, NamedTuple

from vitrail import models

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


class Published(NamedTuple):
    """One set of released weights, and what its authors, or those who measured it, say of it.

    Attributes:
        model: our name for the architecture.
        reference: where `load` finds it.
        licence: of the weights.
        data: what they were trained on, the last data set being that of the classes.
        accuracy: top-1 accuracy on ImageNet-1k's validation images, in percent; None where there is no such figure.
        measured_by: whose figure that is.
        image_size: side of the images in pixels.
        mean, std: of the images, for each channel.
        paper: where the weights or the model were published.
        sha256: of the file of weights, where its publisher states it.
    """

    model: str
    reference: str
    licence: str
    data: str
    accuracy: float | None = None
    measured_by: str = ""
    image_size: int = 224
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    paper: str = ""
    sha256: str = ""


@cache
def of_family(family: str) -> tuple[Published, ...]:
    """All that a family's `published.toml` lists, in its order."""
    file = resources.files(f"vitrail.models.{family.replace('-', '_')}") / "published.toml"
    if not file.is_file():
        return ()
    rows: list[dict[str, Any]] = tomllib.loads(file.read_text(encoding="utf-8")).get("weights", [])
    return tuple(Published(**row) for row in rows)


def recommended(model: str) -> Published | None:
    """The first weights listed for a model; None if none were released where they can be fetched from."""
    return next((weights for weights in of_family(models.family(model)) if weights.model == model), None)
