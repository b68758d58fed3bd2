"""How pre-training on images begins."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from vitrail import models
from vitrail.console import say
from vitrail.data.cache import cached
from vitrail.data.loader import UnreadableImages, default_workers, load_batches
from vitrail.data.rng import torch_seed
from vitrail.data.sample import Batch
from vitrail.data.source import SplitName, Subset
from vitrail.data.unlabelled import open_images
from vitrail.errors import SettingError
from vitrail.objectives import IMAGE_OBJECTIVES, ImageObjective
from vitrail.recipes import run
from vitrail.recipes.config import config_changes, parsed_changes
from vitrail.recipes.costs import forward_flops
from vitrail.recipes.pretraining.neighbours import labelled_images
from vitrail.recipes.pretraining.prepared import Pretraining, steps_for
from vitrail.recipes.pretraining.settings import Pretrain
from vitrail.recipes.training.choose import best_batch_size, fit_to_images, plain_preprocess, typical_side
from vitrail.train import distributed
from vitrail.weights import objective
from vitrail.weights.load import load_pretrained
from vitrail.weights.rename import compare

VALIDATED = 2048  # images that are measured now and then in training; at its end it is all of them


def prepare(settings: Pretrain) -> Pretraining:
    """Open the images, choose what was left open, and build the objective.

    Raises :class:`SettingError` for what cannot be, :class:`DataError` for data that cannot be used.
    """
    assert settings.data is not None
    assert settings.objective is not None
    dataset = open_images(settings.data, settings.format, seed=settings.seed, image_column=settings.image_column)
    for note in dataset.notes:
        say(note)
    dataset = cached(dataset, settings.cache)
    train = dataset.splits["train"]
    learner = build(settings, typical_side(train), dataset.channels)
    if settings.weights == "none":
        learner = learner.fitted_to(train, settings.seed)
    if settings.accumulate > 1 and not learner.parts:
        raise SettingError(f"{learner.name} compares the images of a batch with each other; leave out --accumulate.")
    batch_size = settings.batch_size or best_batch_size(len(train))
    if batch_size < 2 and not learner.parts:
        raise SettingError(f"{learner.name} compares the images of a batch with each other; give more than one.")
    here = distributed.rank(), distributed.world()
    batches = learner.training_batches(train, len(dataset.classes), batch_size, settings.seed, *here)
    workers = default_workers(len(train)) if settings.workers is None else settings.workers
    unreadable = UnreadableImages(len(train), settings.max_unreadable)

    def load(start: int, stop: int) -> Iterator[Batch]:
        for batch in load_batches(batches, start, stop, workers):
            unreadable.note(batch.unreadable)
            yield batch

    def held_back(split: SplitName, most: int | None = None) -> Any:
        source = dataset.splits[split]
        if most is not None and len(source) > most:
            source = Subset(source, np.linspace(0, len(source) - 1, most).round().astype(int).tolist())
        return learner.evaluation_batches(source, len(dataset.classes), min(batch_size, 64), *here)

    split: SplitName = "test" if "test" in dataset.splits else "validation"
    steps = steps_for(settings, batches.steps_per_epoch, max(20, round(800_000 / len(train))))
    size = learner.preprocess.size
    config = learner.backbone.config
    changes = {name: getattr(config, name) for name in config.__dataclass_fields__}
    return Pretraining(
        learner,
        load,
        steps,
        batches.steps_per_epoch,
        batch_size,
        held_back("validation", most=VALIDATED),
        held_back(split),
        split,
        batch_size / distributed.world() * forward_flops(models.family(learner.model), **changes),
        run.fingerprint(dataset),
        f"{len(train):,} training images: {learner.name} with {learner.model} at {size[0]}x{size[1]} pixels for "
        f"{steps:,} steps in batches of {batch_size}",
        labelled=labelled_images(dataset.splits["validation"], len(dataset.classes), learner),
    )


def build(settings: Pretrain, side: int, channels: Any) -> ImageObjective:
    """The objective around its backbone, from random weights or trained ones.

    Raises :class:`SettingError` for a model that it is not made for.
    """
    kind = IMAGE_OBJECTIVES[str(settings.objective)]
    stated = parsed_changes(kind.Options, settings.options, "--options")
    torch.manual_seed(torch_seed(settings.seed, "init"))
    if settings.weights != "none":
        return from_trained(settings, kind, stated, channels)
    model = settings.model if settings.model != "auto" else kind.usual_model(side)
    if models.family(model) not in kind.families:
        raise SettingError(f"{kind.name} is made for {' and '.join(kind.families)}, not for {model}.")
    changes = fit_to_images(model, side, channels) | kind.usual_config
    changes |= {"image_size": [settings.image_size] * 2} if settings.image_size is not None else {}
    changes |= config_changes(model, settings.config)
    backbone = models.create(model, **changes)
    preprocess = kind.usual_preprocess(plain_preprocess(list(backbone.config.image_size), channels))
    return kind(model, backbone, preprocess, kind.Options(**stated))


def from_trained(
    settings: Pretrain, kind: type[ImageObjective], stated: dict[str, Any], channels: Any
) -> ImageObjective:
    """The objective on a trained backbone; with all else of it, such as MAE's decoder, where that comes and fits."""
    found = load_pretrained(settings.weights).changed(
        channels=channels, **({} if settings.image_size is None else {"image_size": settings.image_size})
    )
    same = objective.kind_of(settings.weights) is kind
    before = objective.load(settings.weights) if same else None
    options = kind.Options(**stated) if before is None else replace(before.options, **stated)
    learner = kind(found.model, found.backbone.train().requires_grad_(), found.preprocess, options)
    if before is not None and not compare(learner.state_dict(), before.state_dict()):
        learner.load_state_dict(before.state_dict())
        learner.preprocess = before.preprocess
    else:
        say(f"{settings.weights} gives the weights of the backbone; all else of {kind.name} begins with random ones")
    return learner
