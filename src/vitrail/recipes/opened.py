"""The model that a command works with: a run's, or published weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vitrail import models
from vitrail.data.preprocess import Preprocess
from vitrail.errors import SettingError
from vitrail.export.predictor import Exported, open_onnx
from vitrail.recipes.config import config_changes, parsed_changes
from vitrail.recipes.settings import UNSTATED, Stated
from vitrail.tasks import Classification, TextTask
from vitrail.tasks.classifier import Classifier
from vitrail.tasks.learner import Learner
from vitrail.weights.load import load


def open_task(reference: str, stated: Stated) -> Classification:
    """The classification of a run's folder, of ``hf:ORG/NAME``, ``timm:NAME``, or of a file that ``stated`` explains.

    Raises :class:`SettingError` for what was trained for something else.
    """
    return classification(reference, open_learner(reference, stated))


def classification(reference: str, learner: Learner) -> Classification:
    """The learner of a reference, if it is a classification of images; else raises :class:`SettingError`."""
    if isinstance(learner, TextTask):
        raise SettingError(f"{reference} is a model of text, for {learner.name}; this is for images.")
    if not isinstance(learner, Classification):
        raise SettingError(
            f"{reference} was trained with the objective {learner.name} and knows no classes; train a classifier on "
            f"it: vitrail train DATA --weights {reference}."
        )
    return learner


def open_classifier(reference: str, stated: Stated, merge: int = 0) -> Classifier:
    """The same, or the classifier in an exported ``.onnx`` file, which answers and cannot be looked into."""
    opened = open_model(reference, stated, merge)
    return opened if isinstance(opened, Exported) else classification(reference, opened)


def open_model(reference: str, stated: Stated, merge: int = 0) -> Learner | Exported:
    """What `open_learner` opens, with `merging`; or the classifier in an exported ``.onnx`` file."""
    if Path(reference).suffix != ".onnx":
        return merging(open_learner(reference, stated), merge)
    if stated != UNSTATED or merge:
        raise SettingError(f"{reference} says itself what it is, and cannot be changed; leave such flags out.")
    return open_onnx(Path(reference))


def open_learner(reference: str, stated: Stated) -> Learner:
    """The same, whatever it was trained for."""
    size: dict[str, Any] = {} if stated.image_size is None else {"image_size": stated.image_size}
    preparation = parsed_changes(Preprocess, stated.preprocess, "--preprocess")
    return load(reference, **as_stated(stated), classes=labels(stated.labels), preprocess=preparation, **size)


def merging(learner: Learner, pairs: int) -> Learner:
    """The learner, in each block of which so many pairs of tokens become one (`nn.merging`); as it is with 0.

    Raises :class:`SettingError` for a model that cannot.
    """
    if not pairs:
        return learner
    if not isinstance(learner, Classification) or learner.backbone.merge is None:
        able = [name for name, family in models.FAMILIES.items() if getattr(family.build, "merge", None) is not None]
        raise SettingError(
            f"--merge is for classifiers of images on {', '.join(able[:-1])} or {able[-1]}, and this is "
            f"{learner.model} for {learner.name}; leave it out."
        )
    learner.backbone.merge = pairs
    return learner


def labels(words: str | None) -> list[str] | None:
    """The names in a text with commas between, or in the lines of a file."""
    if words is None:
        return None
    path = Path(words)
    if "," in words or not path.is_file():
        return [name.strip() for name in words.split(",")]
    try:
        return [name.strip() for name in path.read_text(encoding="utf-8").splitlines() if name.strip()]
    except UnicodeDecodeError as error:
        raise SettingError(f"{path} is no text; give a file with the name of a class in each line.") from error


def as_stated(stated: Stated) -> dict[str, Any]:
    """What a person states of a file, as arguments for `weights.load`."""
    if stated.config and stated.model is None:
        raise SettingError("--config changes a model; name it with --model.")
    changes = config_changes(stated.model, stated.config) if stated.model is not None else {}
    return {"layout": stated.layout, "model": stated.model, "config": changes}
