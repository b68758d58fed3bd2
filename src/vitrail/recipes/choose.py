"""What to train with where a person has left it open: one table, from how large and how many the images are."""

from __future__ import annotations

import io
from contextlib import redirect_stderr
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast, get_args, get_origin, get_type_hints

import numpy as np
import tyro

from vitrail import models
from vitrail.data.preprocess import Preprocess
from vitrail.data.source import Dataset, Source
from vitrail.errors import SettingError, UnreadableImage
from vitrail.nn.backbone import Backbone
from vitrail.weights.load import read_description

if TYPE_CHECKING:
    from vitrail.recipes.train import Train

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
GREY = {"mean": (0.5,), "std": (0.5,)}


@dataclass(frozen=True)
class Choice:
    """Every setting that depends on the data, resolved; ``reason`` says in a sentence why.

    ``changes`` are those to the model's published config.
    """

    model: str
    changes: dict[str, Any]
    epochs: int
    batch_size: int
    learning_rate: float
    warmup_epochs: float
    augment: str
    flip: float
    mixup: float
    cutmix: float
    reason: str

    def create(self) -> Backbone:
        """The backbone, with fresh weights."""
        return models.create(self.model, **self.changes)

    def preprocess(self) -> Preprocess:
        """How images become its input: the shorter side to size, the centre cut out."""
        size, channels = self.changes["image_size"], self.changes["channels"]
        statistics = IMAGENET if channels == 3 else GREY
        return Preprocess(size=tuple(size), channels=channels, crop_fraction=1.0, interpolation="bicubic", **statistics)


def choose(settings: Train, dataset: Dataset) -> Choice:
    """Fill in what was left open. Raises :class:`UnknownName` or :class:`SettingError` for what cannot be."""
    images = len(dataset.splits["train"])
    side = typical_side(dataset.splits["train"])
    if settings.model == "auto" and settings.weights != "none":
        description = read_description(Path(settings.weights))
        model, changes = description["model"], description["config"]
    else:
        model = settings.model if settings.model != "auto" else best_model(images, side)
        changes = fit_to_images(model, side, dataset.channels)
    if settings.image_size is not None:
        changes["image_size"] = [settings.image_size] * 2
    changes |= config_changes(model, settings.config)
    epochs = settings.epochs if settings.epochs is not None else min(150, max(20, round(400_000 / images)))
    batch_size = settings.batch_size if settings.batch_size is not None else best_batch_size(images)
    augment = settings.augment if settings.augment != "auto" else "light"
    warmup = settings.warmup_epochs if settings.warmup_epochs is not None else min(5.0, epochs / 10)
    flip = {"yes": True, "no": False, "auto": dataset.channels == 3}[settings.flip]
    usual = {"adamw": 1e-3, "sgd": 2e-2}[settings.optimizer]
    learning_rate = settings.learning_rate if settings.learning_rate is not None else usual
    return Choice(
        model=model,
        changes=changes,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        warmup_epochs=warmup,
        augment=augment,
        flip=0.5 if flip else 0.0,
        mixup=settings.mixup,
        cutmix=settings.cutmix,
        reason=(
            f"{images:,} training images of about {side} pixels, {len(dataset.classes)} classes: {model} at "
            f"{changes['image_size'][0]} pixels for {epochs} epoch{'s' * (epochs > 1)} in batches of {batch_size}, "
            f"augmentation '{augment}'{' with mirroring' if flip else ''}, "
            f"from {'random weights' if settings.weights == 'none' else settings.weights}"
        ),
    )


def best_model(images: int, side: int) -> str:
    """From random weights: our small ViTs for small images; for photographs a ViT only once it has enough of them."""
    if side <= 12:
        return "vit-nano"
    if side <= 64:
        return "vit-micro"
    return "resnet-18" if images < 20_000 else "vit-s16"


def fit_to_images(model: str, side: int, channels: int) -> dict[str, Any]:
    """Changes to a model's published config for images whose shorter side has ``side`` pixels."""
    family = models.family(model)
    if family == "lenet":
        return {"image_size": list(models.config(model).image_size), "channels": channels}
    if family == "resnet":
        small = side <= 64
        return {
            "image_size": [side if small else 128] * 2,
            "channels": channels,
            "stem": "small" if small else "imagenet",
        }
    published: Any = models.config(model)
    if side > 64:
        size = published.image_size[0] if published.image_size[0] > 64 else 64
        return {"image_size": [size] * 2, "channels": channels}
    patch = 2 if side <= 12 else 4 if side <= 32 else 8  # a grid of 4 to 8 patches on each side
    return {"image_size": [-(-side // patch) * patch] * 2, "channels": channels, "patch_size": patch}


def best_batch_size(images: int) -> int:
    """128, or 32 for data that would make too few such batches; less for very little data."""
    return 128 if images >= 4_000 else min(32, max(2, images // 4 * 2))


def typical_side(source: Source, sample: int = 32) -> int:
    """The median of the shorter side, in pixels, of a few images spread evenly over the source."""
    sides = []
    for index in np.linspace(0, len(source) - 1, min(sample, len(source))).astype(int):
        try:
            sides.append(min(source.sample(int(index)).image.shape[:2]))
        except UnreadableImage:
            continue  # it will be named when it is its turn
    return int(np.median(sides)) if sides else 224


def config_changes(model: str, words: tuple[str, ...]) -> dict[str, Any]:
    """``("patch_size=8", "pool=map")`` as values of the types that the model's config has."""
    published: Any = models.config(model)
    known = [field.name for field in fields(published)]
    changes = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise SettingError(f"--config takes name=value, such as patch_size=8, not '{word}'.")
        if name not in known:
            raise SettingError(f"the model '{model}' has no setting '{name}'; it has: {', '.join(known)}.")
        changes[name] = _parsed(type(published), name, value)
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
