"""How pre-training on images begins."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from vitrail import models
from vitrail.console import say
from vitrail.data.loader import EvaluationBatches, TrainingBatches, UnreadableImages, default_workers, load_batches
from vitrail.data.mix import Mix
from vitrail.data.rng import torch_seed
from vitrail.data.sample import Batch
from vitrail.data.unlabelled import open_images
from vitrail.errors import SettingError
from vitrail.objectives import IMAGE_OBJECTIVES, ImageObjective
from vitrail.recipes import run
from vitrail.recipes.choose import best_batch_size, fit_to_images, plain_preprocess, typical_side
from vitrail.recipes.config import config_changes, parsed_changes
from vitrail.recipes.models import forward_flops
from vitrail.recipes.pretraining import Pretraining, steps_for
from vitrail.train import distributed
from vitrail.weights.load import load_pretrained

if TYPE_CHECKING:
    from vitrail.recipes.pretrain import Pretrain


def prepare(settings: Pretrain) -> Pretraining:
    """Open the images, choose what was left open, and build the objective.

    Raises :class:`SettingError` for what cannot be, :class:`DataError` for data that cannot be used.
    """
    assert settings.data is not None
    assert settings.objective is not None
    dataset = open_images(settings.data, settings.format, seed=settings.seed, image_column=settings.image_column)
    for note in dataset.notes:
        say(note)
    train = dataset.splits["train"]
    learner = build(settings, typical_side(train), dataset.channels)
    if settings.accumulate > 1 and not learner.parts:
        raise SettingError(f"{learner.name} compares the images of a batch with each other; leave out --accumulate.")
    batch_size = settings.batch_size or best_batch_size(len(train))
    augment = learner.augment if dataset.channels == 3 else replace(learner.augment, flip=0.0)
    batches = TrainingBatches(
        train,
        len(dataset.classes),
        learner.preprocess,
        augment,
        Mix(),
        batch_size,
        further=learner.further,
        seed=settings.seed,
        rank=distributed.rank(),
        world=distributed.world(),
    )
    workers = default_workers(len(train)) if settings.workers is None else settings.workers
    unreadable = UnreadableImages(len(train), settings.max_unreadable)

    def load(start: int, stop: int) -> Iterator[Batch]:
        for batch in load_batches(batches, start, stop, workers):
            unreadable.note(batch.unreadable)
            yield batch

    def held_back(split: Any) -> EvaluationBatches:
        of_split = (dataset.splits[split], len(dataset.classes), learner.preprocess, min(batch_size, 64))
        return EvaluationBatches(*of_split, distributed.rank(), distributed.world())

    split = "test" if "test" in dataset.splits else "validation"
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
        held_back("validation"),
        held_back(split),
        split,
        batch_size / distributed.world() * forward_flops(models.family(learner.model), **changes),
        run.fingerprint(dataset),
        f"{len(train):,} training images: {learner.name} with {learner.model} at {size[0]}x{size[1]} pixels for "
        f"{steps:,} steps in batches of {batch_size}",
    )


def build(settings: Pretrain, side: int, channels: Any) -> ImageObjective:
    """The objective around its backbone, from random weights or trained ones."""
    kind = IMAGE_OBJECTIVES[str(settings.objective)]
    options = kind.Options(**parsed_changes(kind.Options, settings.options, "--options"))
    torch.manual_seed(torch_seed(settings.seed, "init"))
    if settings.weights != "none":
        found = load_pretrained(settings.weights).changed(
            channels=channels, **({} if settings.image_size is None else {"image_size": settings.image_size})
        )
        return kind(found.model, found.backbone.train(), found.preprocess, options)
    model = settings.model if settings.model != "auto" else kind.usual_model(side)
    changes = fit_to_images(model, side, channels) | kind.usual_config
    changes |= {"image_size": [settings.image_size] * 2} if settings.image_size is not None else {}
    changes |= config_changes(model, settings.config)
    backbone = models.create(model, **changes)
    preprocess = kind.usual_preprocess(plain_preprocess(list(backbone.config.image_size), channels))
    return kind(model, backbone, preprocess, options)
