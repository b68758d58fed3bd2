"""How a run begins, or goes on: every mistake in what was asked for is found before a file is written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import nn
from torch.distributed import is_torchelastic_launched

from vitrail.console import say
from vitrail.data.augment import PRESETS
from vitrail.data.cache import limit_of
from vitrail.data.dataset import class_counts, open_dataset
from vitrail.data.loader import TrainingBatches
from vitrail.data.mix import Mix
from vitrail.data.rng import torch_seed
from vitrail.data.source import Dataset
from vitrail.data.split import leak_notes
from vitrail.errors import RunError, SettingError
from vitrail.recipes import run
from vitrail.recipes.adapt import adapt, refuse_frozen_noise
from vitrail.recipes.resume import as_json
from vitrail.recipes.settings import check_numbers
from vitrail.recipes.training.choose import Choice, choose, find_pretrained
from vitrail.recipes.training.presets import preset, with_preset
from vitrail.recipes.training.settings import Train
from vitrail.recipes.training.teacher import fingerprint, with_teacher
from vitrail.tasks.classification import Classification, class_weights
from vitrail.train import distributed
from vitrail.weights.files import hub_reference
from vitrail.weights.load import Pretrained

MOST_COMPARED = 100_000  # images that are looked through for leaks before training


class Start(NamedTuple):
    """What a run is made of.

    Attributes:
        settings: with the paths of data and teacher in full.
        dataset: the data.
        choice: all that was left open.
        task: what is kept.
        learner: what is trained: the task, or an objective around it.
        folder: the run's.
    """

    settings: Train
    dataset: Dataset
    choice: Choice
    task: Classification
    learner: nn.Module
    folder: Path


def check(settings: Train) -> None:
    """Raises :class:`SettingError` or :class:`UnknownName` for settings that make no sense, whatever the data."""
    check_numbers(settings)
    if settings.data is None and settings.resume is None:
        raise SettingError("no data was given: `vitrail train DATA`, or `vitrail train --resume RUN`.")
    limit_of(settings.cache)
    if settings.recipe is not None:
        preset(settings.recipe)
    if settings.distill != "hard" and settings.teacher is None and settings.resume is None:
        raise SettingError(f"--distill {settings.distill} needs somebody to learn from; name a model by --teacher.")
    if settings.shard and not is_torchelastic_launched():
        raise SettingError("--shard needs processes to spread over: `torchrun --nproc-per-node N -m vitrail train …`.")


def started(settings: Train, device: torch.device, dtype: torch.dtype) -> Start:
    """Open the data, choose what was left open, and make the run's folder."""
    assert settings.data is not None
    if settings.out is not None:
        run.refuse_existing(Path(settings.out), settings.overwrite)  # before the data is looked through
    settings = with_full_paths(settings)
    dataset = open_data(settings)
    for note in dataset.notes:
        say(note)
    leaks = find_leaks(dataset)
    settings = with_preset(settings, len(dataset.splits["train"]))
    pretrained = find_pretrained(settings, dataset)
    choice = choose(settings, dataset, pretrained)
    say(choice.reason)
    refuse_frozen_noise(settings.adapt, settings.freeze, choice.model, choice.weights)
    task = build_task(settings, dataset, choice, pretrained)  # and its batches, while nothing is written yet
    learner = with_teacher(settings, task)
    training_batches(settings, dataset, choice, task)
    folder = Path(settings.out or run.default_folder(str(settings.data), choice.model))
    record = {
        "settings": as_json(settings),
        "choice": as_json(choice),
        "device": str(device),
        "precision": str(dtype).removeprefix("torch."),
        "data": {
            "fingerprint": run.fingerprint(dataset),
            "images": {split: len(source) for split, source in dataset.splits.items()},
            "leaks": leaks,
        },
        "teacher": fingerprint(learner),
    }
    run.start(folder, record, overwrite=settings.overwrite)
    return Start(settings, dataset, choice, task, learner, folder)


def with_full_paths(settings: Train) -> Train:
    """``settings`` with the data and the teacher by their full paths, so that the run finds them from any folder."""
    data, teacher = settings.data, settings.teacher
    if teacher is not None and hub_reference(teacher) is None:
        teacher = str(Path(teacher).expanduser().resolve())
    return replace(settings, data=None if data is None else run.absolute(data), teacher=teacher)


def resumed(settings: Train) -> Start:
    """The run as it was started: the same choices, and the same data and teacher or :class:`RunError`."""
    assert settings.resume is not None
    folder = Path(settings.resume)
    record = run.read(folder)
    dataset = open_data(settings)
    run.refuse_changed(dataset, record, folder, "restore them, or start a new run")
    try:
        choice = Choice(**record["choice"])
    except TypeError as error:
        raise RunError(f"{folder / run.RECORD} is damaged ({error}); start again with --overwrite.") from error
    task = build_task(settings, dataset, choice)
    learner = with_teacher(settings, task)
    if fingerprint(learner) != record.get("teacher"):
        raise RunError(
            f"the teacher {settings.teacher} is no longer the one that {folder} was started with; restore it, or start "
            "a new run."
        )
    return Start(settings, dataset, choice, task, learner, folder)


def open_data(settings: Train) -> Dataset:
    """The data set that the settings name, with every split that it can have."""
    assert settings.data is not None
    return open_dataset(
        settings.data,
        settings.format,
        seed=settings.seed,
        image_column=settings.image_column,
        label_column=settings.label_column,
        share=settings.share,
    )


def find_leaks(dataset: Dataset) -> list[str]:
    """A sentence for each two splits that share images, all said in one line; scenes drawn on demand are not compared.

    Of files only those are read whose size occurs in two splits.
    """
    if dataset.format == "shapes":
        return []
    if sum(map(len, dataset.splits.values())) > MOST_COMPARED:
        say("Too many images to look first for the same ones in two splits; `vitrail info DATA` does.")
        return []
    leaks = leak_notes(dataset)
    if leaks:
        say(f"Leak: {'; '.join(leaks)}.")
    return leaks


def build_task(
    settings: Train, dataset: Dataset, choice: Choice, pretrained: Pretrained | None = None
) -> Classification:
    """Backbone and head with the weights that training starts from, and the gradients that it needs.

    Without ``pretrained`` the weights are random, as they may be where a saved state is about to replace them.
    """
    torch.manual_seed(torch_seed(settings.seed, "init"))
    weights = None
    if settings.balance == "weights":
        counts = class_counts(dataset.splits["train"])
        weights = class_weights(np.array([counts[k] for k in range(len(dataset.classes))]))
    task = Classification(
        choice.model,
        choice.create(),
        dataset.classes,
        choice.preprocess(),
        many_labels=dataset.many_labels,
        label_smoothing=settings.label_smoothing,
        class_weights=weights,
    )
    if pretrained is not None:
        start_from(task, pretrained)
    adapt(task, settings.adapt, settings.freeze, settings.lora_rank)
    return task


def start_from(task: Classification, pretrained: Pretrained) -> None:
    """Copy the backbone's weights, resampled to the task's image size; the head's, too, if it has the same classes."""
    before, config = pretrained.backbone.config, task.backbone.config
    weights = pretrained.backbone.state_dict()
    if before != config:
        weights = task.backbone.adapted(weights, before, pretrained.resampling)
    task.backbone.load_state_dict(weights)
    if pretrained.classes == task.classes:
        task.head.load_state_dict(pretrained.head)
    elif pretrained.classes:
        say(f"a new head for {len(task.classes)} classes in place of that for {len(pretrained.classes):,}")


def training_batches(settings: Train, dataset: Dataset, choice: Choice, task: Classification) -> TrainingBatches:
    """The endless batches that this process trains on."""
    return TrainingBatches(
        dataset.splits["train"],
        len(dataset.classes),
        task.preprocess,
        replace(PRESETS[choice.augment], flip=choice.flip),
        Mix(mixup=choice.mixup, cutmix=choice.cutmix, probability=0.5),  # pure images, too: a model meets only those
        choice.batch_size,
        balance=settings.balance == "sampling",
        seed=settings.seed,
        rank=distributed.rank(),
        world=distributed.world(),
    )
