"""What to train with where a person has left it open: from how large and how many the images are."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from vitrail import models
from vitrail.data.preprocess import Preprocess
from vitrail.data.source import Dataset, Source
from vitrail.errors import CheckpointError, SettingError, UnreadableImage
from vitrail.models.layout import IMAGENET
from vitrail.nn.backbone import Backbone
from vitrail.recipes.config import config_changes
from vitrail.recipes.training.presets import recipe_config
from vitrail.recipes.training.settings import Train
from vitrail.weights.files import NoNetwork
from vitrail.weights.load import Pretrained, fitted, load_pretrained
from vitrail.weights.published import recommended

GREY = {"mean": (0.5,), "std": (0.5,)}


@dataclass(frozen=True)
class Choice:
    """Every setting that depends on the data, resolved; ``reason`` says in a sentence why.

    ``changes`` are those to the model's published config, ``preparation`` is a `Preprocess` as JSON has it, ``weights``
    a reference or "none".
    """

    model: str
    changes: dict[str, Any]
    preparation: dict[str, Any]
    weights: str
    epochs: int
    batch_size: int
    learning_rate: float
    layer_decay: float
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
        """How images become its input."""
        return Preprocess.from_json(self.preparation)


def choose(settings: Train, dataset: Dataset, pretrained: Pretrained | None = None) -> Choice:
    """Fill in what was left open. Raises :class:`UnknownName` or :class:`SettingError` for what cannot be.

    ``pretrained`` is what training starts from, as `find_pretrained` found it; None for random weights.
    """
    images = len(dataset.splits["train"])
    side = typical_side(dataset.splits["train"])
    if pretrained is None:
        model, backbone = model_for(settings, images, side), None
        changes = fit_to_images(model, side, dataset.channels)
        changes |= {"image_size": [settings.image_size] * 2} if settings.image_size is not None else {}
        changes |= config_changes(model, (*recipe_config(settings.recipe, model), *settings.config))
        preparation = plain_preprocess(changes["image_size"], changes["channels"])
        weights = "none"
    else:
        backbone = adapt_to_images(settings, dataset, pretrained)
        model, changes, weights = pretrained.model, asdict(backbone.config), reference(settings, images, side)
        preparation = fitted(pretrained.preprocess, backbone)
    epochs = settings.epochs if settings.epochs is not None else epochs_for(images, fine_tuning=backbone is not None)
    batch_size = settings.batch_size if settings.batch_size is not None else best_batch_size(images)
    augment = settings.augment if settings.augment != "auto" else "light"
    warmup = settings.warmup_epochs if settings.warmup_epochs is not None else min(5.0, epochs / 10)
    flip = {"yes": True, "no": False, "auto": dataset.channels == 3}[settings.flip]
    learning_rate = settings.learning_rate if settings.learning_rate is not None else rate_for(settings, backbone)
    layer_decay = settings.layer_decay if settings.layer_decay is not None else decay_for(settings, backbone)
    size = changes["image_size"]
    return Choice(
        model=model,
        changes=changes,
        preparation=preparation.to_json(),
        weights=weights,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        layer_decay=layer_decay,
        warmup_epochs=warmup,
        augment=augment,
        flip=0.5 if flip else 0.0,
        mixup=settings.mixup,
        cutmix=settings.cutmix,
        reason=(
            f"{images:,} training images of about {side} pixels, {len(dataset.classes)} classes: {model} at "
            f"{size[0] if size[0] == size[1] else f'{size[0]}x{size[1]}'} pixels for {epochs} "
            f"epoch{'s' * (epochs > 1)} in batches of {batch_size}, augmentation '{augment}'"
            f"{' with mirroring' if flip else ''}, from {origin(settings, model, weights)}"
        ),
    )


def find_pretrained(settings: Train, dataset: Dataset) -> Pretrained | None:
    """What training starts from; None for random weights. Fetches published weights."""
    images, side = len(dataset.splits["train"]), typical_side(dataset.splits["train"])
    name = reference(settings, images, side)
    if name == "none":
        return None
    if settings.layout is None:
        try:
            found = load_pretrained(name)
        except NoNetwork as error:
            if settings.weights != "auto":
                raise
            raise CheckpointError(
                f"{str(error).removesuffix('.')}, or from random weights with --weights none."
            ) from error
    elif settings.model == "auto":
        raise SettingError("--layout says whose names a file has; say with --model what model it is.")
    else:
        changes = config_changes(settings.model, settings.config)
        found = load_pretrained(name, layout=settings.layout, model=settings.model, config=changes)
    if settings.model not in ("auto", found.model, models.family(found.model)):
        raise SettingError(f"--weights {name} is a {found.model}, not a {settings.model}; leave out --model.")
    return found


def reference(settings: Train, images: int, side: int) -> str:
    """Which weights training starts from: those that were named, or the published ones of the model; or "none"."""
    if settings.weights != "auto":
        return settings.weights
    if models.family_of_images(model := model_for(settings, images, side)) == "resnet" and side <= 64:
        return "none"  # what was learned of large photographs, through a stem that quarters them, is of little use here
    published = recommended(model)
    return published.reference if published else "none"


def origin(settings: Train, model: str, weights: str) -> str:
    """What training starts from, in words; where nobody asked for random weights, why they are."""
    if weights != "none":
        return weights
    if settings.weights == "none":
        return "random weights"
    why = f"none of {model} are published" if recommended(model) is None else "published ones know large photographs"
    return f"random weights ({why})"


def model_for(settings: Train, images: int, side: int) -> str:
    """The model that was named, or the best for data like these.

    Small images: our small ViTs. Photographs: a ViT with published weights; from random ones only if there are enough
    of them to learn from.
    """
    if settings.model != "auto":
        return settings.model
    if side <= 64:
        return "vit-nano" if side <= 12 else "vit-micro"
    return "resnet-18" if settings.weights == "none" and images < 20_000 else "vit-s16"


def adapt_to_images(settings: Train, dataset: Dataset, pretrained: Pretrained) -> Backbone:
    """The pretrained backbone at the image size, with the channels and changes that are wanted."""
    wanted: dict[str, Any] = {"channels": dataset.channels}
    if settings.image_size is not None:
        wanted["image_size"] = settings.image_size
    wanted |= config_changes(pretrained.model, recipe_config(settings.recipe, pretrained.model))
    if settings.layout is None:  # else they say what the file is
        wanted |= config_changes(pretrained.model, settings.config)
    return pretrained.changed(**wanted).backbone


def plain_preprocess(size: list[int], channels: Any) -> Preprocess:
    """For random weights: the shorter side to size, the centre cut out."""
    statistics = IMAGENET if channels == 3 else GREY
    return Preprocess(size=tuple(size), channels=channels, crop_fraction=1.0, interpolation="bicubic", **statistics)  # type: ignore[arg-type]


def epochs_for(images: int, *, fine_tuning: bool) -> int:
    """Enough passes that little data is seen often; fewer for weights that know much already."""
    return min(30, max(5, round(60_000 / images))) if fine_tuning else min(150, max(20, round(400_000 / images)))


def rate_for(settings: Train, backbone: Backbone | None) -> float:
    """The peak learning rate: gentler with trained weights, but not for a head or low-rank changes alone."""
    usual = {"adamw": 1e-3, "sgd": 2e-2}[settings.optimizer]
    return usual if backbone is None or settings.adapt != "full" else usual / 4


def decay_for(settings: Train, backbone: Backbone | None) -> float:
    """Layer-wise decay of the learning rate: for trained weights each family's own, else none."""
    return 1.0 if backbone is None or settings.adapt != "full" else backbone.layer_decay


def fit_to_images(model: str, side: int, channels: int) -> dict[str, Any]:
    """Changes to a model's published config for images whose shorter side has ``side`` pixels."""
    family = models.family_of_images(model)
    published: Any = models.config(model)
    if "stem" in published.__dataclass_fields__ and family == "resnet":
        small = side <= 64
        size = side if small else min(128, published.image_size[0])
        return {"image_size": [size] * 2, "channels": channels, "stem": "small" if small else published.stem}
    if "patch_size" in published.__dataclass_fields__ and side <= 64:
        patch = 2 if side <= 12 else 4 if side <= 32 else 8  # a grid of 4 to 8 patches on each side
        return {"image_size": [-(-side // patch) * patch] * 2, "channels": channels, "patch_size": patch}
    size = list(published.image_size)
    if family == "vit" and size[0] <= 64 < side:
        size = [64, 64]
    if family == "igpt" and channels == 1:  # of grey images, 16 shades are as much as hundreds of colours
        return {"image_size": size, "channels": 1, "colours": min(16, published.colours)}
    return {"image_size": size, "channels": channels}


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
