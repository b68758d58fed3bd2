"""Vitrail: from a folder of images to a vision model that you can trust, look into and ship.

The names below are imported when they are first used, so that ``import vitrail`` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vitrail.data.dataset import open_dataset
    from vitrail.models import create
    from vitrail.recipes.evaluating.evaluate import evaluate
    from vitrail.recipes.evaluating.settings import Evaluate
    from vitrail.recipes.predicting.predict import predict
    from vitrail.recipes.predicting.settings import Predict
    from vitrail.recipes.pretraining.pretrain import pretrain
    from vitrail.recipes.pretraining.settings import Pretrain
    from vitrail.recipes.training.settings import Train
    from vitrail.recipes.training.train import train
    from vitrail.weights.load import load

__version__ = "0.1.0"

_HOME = {
    "Evaluate": "vitrail.recipes.evaluating.settings",
    "Predict": "vitrail.recipes.predicting.settings",
    "Pretrain": "vitrail.recipes.pretraining.settings",
    "Train": "vitrail.recipes.training.settings",
    "create": "vitrail.models",
    "evaluate": "vitrail.recipes.evaluating.evaluate",
    "load": "vitrail.weights.load",
    "open_dataset": "vitrail.data.dataset",
    "predict": "vitrail.recipes.predicting.predict",
    "pretrain": "vitrail.recipes.pretraining.pretrain",
    "train": "vitrail.recipes.training.train",
}

# The package `vitrail.train` is imported before the function of that name is: Python binds a package's name to it once,
# at its first import, which would otherwise some day put it in the place of the function.
importlib.import_module("vitrail.train")
del globals()["train"]

__all__ = [
    "Evaluate",
    "Predict",
    "Pretrain",
    "Train",
    "create",
    "evaluate",
    "load",
    "open_dataset",
    "predict",
    "pretrain",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'vitrail' has no attribute '{name}'")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
