"""Train: from a folder of images to a run's folder with the best weights, the figures and the pictures."""

from __future__ import annotations

import dataclasses
import json
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from tyro.conf import Positional

from vitrail import atomic
from vitrail.console import say
from vitrail.data.augment import PRESETS
from vitrail.data.dataset import open_dataset
from vitrail.data.loader import MAX_UNREADABLE, TrainingBatches, UnreadableImages, default_workers, load_batches
from vitrail.data.mix import Mix
from vitrail.data.rng import torch_seed
from vitrail.data.sample import Batch, Label, Labels
from vitrail.data.source import Dataset, Source
from vitrail.errors import RunError, SettingError
from vitrail.metrics import calibration, draw
from vitrail.metrics.classification import ClassificationMetric
from vitrail.recipes import run
from vitrail.recipes.choose import Choice, choose
from vitrail.recipes.evaluate import draw_report, in_words, measure, report
from vitrail.tasks.classification import Classification, class_weights
from vitrail.train import distributed
from vitrail.train.log import read_log
from vitrail.train.loop import Plan, fit
from vitrail.train.optim import OptimizerName
from vitrail.train.precision import Precision, choose_device, choose_precision
from vitrail.weights.load import load
from vitrail.weights.save import save_description, save_weights


@dataclass(frozen=True)
class Train:
    """Train a model on your images; what you leave open is chosen for your data, and said.

    Examples:
      vitrail train photos/
      vitrail train photos/ --model vit-s16 --image-size 160 --epochs 50 --out runs/photos
      vitrail train labels.csv --balance sampling --augment strong
      vitrail train --resume runs/photos
      torchrun --nproc-per-node 2 -m vitrail train photos/
    """

    data: Positional[str | None] = None
    """A folder of class folders, a table of paths and labels, or another kind of data that `vitrail info` knows."""
    out: Path | None = None
    """The run's folder; left out: runs/DATA-MODEL."""
    resume: Path | None = None
    """Go on with this run, exactly where it was; everything else is as it was started with."""
    overwrite: bool = False
    """Replace the run that is in --out."""
    model: str = "auto"
    """A name from `vitrail models`."""
    config: tuple[str, ...] = ()
    """Changes to the model, such as: patch_size=8 position=rotary pool=map registers=4 drop_path=0.1."""
    weights: str = "none"
    """What to start from: none (random weights), or a run's folder (its backbone)."""
    image_size: int | None = None
    """Side of the images in pixels, as the model sees them."""
    epochs: int | None = None
    """How many times to go through the training images."""
    batch_size: int | None = None
    """Images in a step, over all processes."""
    learning_rate: float | None = None
    """Peak learning rate."""
    optimizer: OptimizerName = "adamw"
    """AdamW, or SGD with momentum."""
    weight_decay: float = 0.05
    """Of matrices and kernels; norms, biases, positions and tokens never decay."""
    layer_decay: float = 1.0
    """Factor of the learning rate from each layer to the one below."""
    warmup_epochs: float | None = None
    """Epochs until the learning rate is at its peak."""
    clip: float = 1.0
    """Largest norm of the gradient; 0 for any."""
    accumulate: int = 1
    """Parts into which each batch is cut to save memory."""
    ema: float = 0.0
    """Decay of a moving average of the weights, such as 0.999; 0 for none."""
    patience: int = 0
    """Stop after so many epochs without a better score; 0 for never."""
    augment: Literal["auto", "none", "light", "strong"] = "auto"
    """How much chance changes each image."""
    flip: bool | None = None
    """Mirror images by chance; left out: only colour ones, for a mirrored sign is another sign."""
    mixup: float | None = None
    """Strength of Mixup, such as 0.8; 0 for none."""
    cutmix: float | None = None
    """Strength of CutMix, such as 1.0; 0 for none."""
    label_smoothing: float = 0.1
    """Share of each label that is spread over all classes."""
    balance: Literal["none", "sampling", "weights"] = "none"
    """For classes of very different sizes: draw each class equally often, or weight its loss."""
    format: str | None = None
    """How DATA is stored, where looking at it does not tell."""
    image_column: str | None = None
    """The column of a table that holds the images' paths."""
    label_column: str | None = None
    """The column of a table that holds the labels."""
    max_unreadable: float = MAX_UNREADABLE
    """Share of images that may be unreadable before training stops."""
    workers: int | None = None
    """Processes that read images; changes the speed only. Left out: chosen for the machine."""
    device: str = "auto"
    """cpu, cuda, mps, or auto for the best there is."""
    precision: Precision = "auto"
    """Format of matrix products; auto is bfloat16 where the machine has it."""
    shard: bool = False
    """Under torchrun: spread weights and optimizer over the processes (FSDP2) instead of copying them."""
    save_seconds: float = 60.0
    """How often to save the state for --resume; changes no result."""
    log: Literal["none", "tensorboard"] = "none"
    """Write TensorBoard events, too."""
    seed: int = 0
    """Another seed is another run; the same one is the same run."""
    json: bool = False
    """Print the figures as one JSON document."""


def train(settings: Train) -> dict[str, Any]:
    """Train, or go on with a run; returns the figures on the test split (or validation, where there is no test)."""
    with distributed.process_group(choose_device(settings.device)) as device:
        settings, dataset, choice, folder = resumed(settings) if settings.resume else started(settings)
        began = time.perf_counter()
        task = build_task(settings, dataset, choice).to(device)
        dtype = choose_precision(device, settings.precision)
        say(f"{choice.model}, {parameters(task):,} parameters, on {device} in {str(dtype).removeprefix('torch.')}")

        batches = training_batches(settings, dataset, choice, task)
        unreadable = UnreadableImages(len(batches.source), settings.max_unreadable)
        workers = default_workers(len(batches.source)) if settings.workers is None else settings.workers

        def load_training(start: int, stop: int) -> Iterator[Batch]:
            for batch in load_batches(batches, start, stop, workers):
                unreadable.note(batch.unreadable)
                yield batch

        held_back = dataset.splits["validation"]

        def validate() -> dict[str, float]:
            figures = measure(task, held_back, device, dtype, workers=settings.workers, what=None).compute()
            return {key: figures[key] for key in (task.score, "macro_f1", "nll", "ece")}

        def keep() -> None:
            best = distributed.whole(task.state_dict())
            if distributed.rank() == 0:
                save_weights(best, folder)

        if distributed.rank() == 0:
            save_description(task, folder)
        state = fit(
            task,
            load_training,
            plan(settings, choice, batches.steps_per_epoch),
            validate=validate,
            score=task.score,
            keep=keep,
            folder=folder,
            device=device,
            dtype=dtype,
            tensorboard=settings.log == "tensorboard",
        )
        best_epoch = state.best_step // batches.steps_per_epoch
        say(f"best {task.score} on validation {state.best:.4f}, after epoch {best_epoch}")
        figures = finish(folder, dataset, device, dtype, settings)
        return figures | {"run": str(folder), "seconds": round(time.perf_counter() - began, 1)}


def started(settings: Train) -> tuple[Train, Dataset, Choice, Path]:
    """Open the data, choose what was left open, and make the run's folder."""
    if settings.data is None:
        raise SettingError("no data was given: `vitrail train DATA`, or `vitrail train --resume RUN`.")
    if settings.out is not None:
        run.refuse_existing(settings.out, settings.overwrite)  # before the data is looked through
    dataset = open_data(settings)
    for note in dataset.notes:
        say(note)
    choice = choose(settings, dataset)
    say(choice.reason)
    settings = replace(settings, data=absolute(settings.data))
    folder = settings.out or Path("runs") / f"{Path(dataset.name).stem or 'data'}-{choice.model}"
    record = {
        "settings": as_json(settings),
        "choice": as_json(choice),
        "data": {"fingerprint": run.fingerprint(dataset), "images": {k: len(v) for k, v in dataset.splits.items()}},
    }
    build_task(settings, dataset, choice)  # what cannot be built is said before the folder is made
    run.start(folder, record, overwrite=settings.overwrite)
    return settings, dataset, choice, folder


def resumed(settings: Train) -> tuple[Train, Dataset, Choice, Path]:
    """The run as it was started: the same settings, and the same data or :class:`RunError`."""
    assert settings.resume is not None
    folder = settings.resume
    record = run.read(folder)
    started_with: dict[str, Any] = record["settings"] | {"config": tuple(record["settings"]["config"])}
    settings = replace(  # these three change no result
        Train(**started_with), workers=settings.workers, save_seconds=settings.save_seconds, json=settings.json
    )
    dataset = open_data(settings)
    if run.fingerprint(dataset) != record["data"]["fingerprint"]:
        raise RunError(
            f"the images or labels of {settings.data} are not those that {folder} was started with; restore them, or "
            "start a new run."
        )
    return settings, dataset, Choice.from_json(record["choice"]), folder


def open_data(settings: Train) -> Dataset:
    """The data set that the settings name, with every split that it can have."""
    assert settings.data is not None
    return open_dataset(
        settings.data,
        settings.format,
        seed=settings.seed,
        image_column=settings.image_column,
        label_column=settings.label_column,
    )


def build_task(settings: Train, dataset: Dataset, choice: Choice) -> Classification:
    """Backbone and head with the weights that training starts from."""
    torch.manual_seed(torch_seed(settings.seed, "init"))
    weights = None
    if settings.balance == "weights":
        weights = class_weights(label_counts(dataset.splits["train"], len(dataset.classes)))
    task = Classification(
        choice.model,
        choice.create(),
        dataset.classes,
        choice.preprocess(dataset.channels),
        many_labels=dataset.many_labels,
        label_smoothing=settings.label_smoothing,
        class_weights=weights,
    )
    if settings.weights != "none":
        start_from(task, settings.weights)
    return task


def start_from(task: Classification, reference: str) -> None:
    """Copy the backbone's weights of another run; the head, too, if it has the same classes."""
    other = load(reference)
    theirs = {name: tuple(value.shape) for name, value in other.backbone.state_dict().items()}
    if theirs != {name: tuple(value.shape) for name, value in task.backbone.state_dict().items()}:
        raise SettingError(
            f"--weights {reference} is a {other.model} of another shape; train that model, with its image size."
        )
    task.backbone.load_state_dict(other.backbone.state_dict())
    if isinstance(other, Classification) and other.classes == task.classes:
        task.head.load_state_dict(other.head.state_dict())
    else:
        say(f"new head: {len(task.classes)} classes")


def training_batches(settings: Train, dataset: Dataset, choice: Choice, task: Classification) -> TrainingBatches:
    """The endless batches that this process trains on."""
    return TrainingBatches(
        dataset.splits["train"],
        len(dataset.classes),
        task.preprocess,
        replace(PRESETS[choice.augment], flip=choice.flip),
        Mix(mixup=choice.mixup, cutmix=choice.cutmix),
        choice.batch_size,
        balance=settings.balance == "sampling",
        seed=settings.seed,
        rank=distributed.rank(),
        world=distributed.world(),
    )


def plan(settings: Train, choice: Choice, steps_per_epoch: int) -> Plan:
    """Epochs as steps."""
    return Plan(
        steps=choice.epochs * steps_per_epoch,
        steps_per_epoch=steps_per_epoch,
        learning_rate=choice.learning_rate,
        optimizer=settings.optimizer,
        weight_decay=settings.weight_decay,
        warmup=round(choice.warmup_epochs * steps_per_epoch),
        layer_decay=settings.layer_decay,
        clip=settings.clip,
        accumulate=settings.accumulate,
        ema=settings.ema,
        patience=settings.patience,
        log_every=max(1, steps_per_epoch // 10),
        save_seconds=settings.save_seconds,
        shard=settings.shard,
        seed=settings.seed,
    )


def finish(folder: Path, dataset: Dataset, device: torch.device, dtype: torch.dtype, settings: Train) -> dict[str, Any]:
    """With the best weights: fit the temperature, measure on held-out images, draw; each process measures its share."""
    distributed.barrier()
    task = load(folder).to(device)
    assert isinstance(task, Classification)
    options: dict[str, Any] = {"workers": settings.workers, "max_unreadable": settings.max_unreadable}
    validation = measure(task, dataset.splits["validation"], device, dtype, what=None, **options)
    if isinstance(validation, ClassificationMetric):
        task.temperature = round(calibration.fit_temperature(validation.logits, validation.targets), 4)
    split = "test" if "test" in dataset.splits else "validation"
    metric = measure(task, dataset.splits["test"], device, dtype, **options) if split == "test" else validation
    figures = report(task, metric) | {"split": split}
    if distributed.rank() == 0:
        save_description(task, folder)
        draw.save(draw.curves(read_log(folder / "metrics.jsonl")), folder / "plots" / "curves.png")
        draw_report(task, metric, figures, folder / "plots")
        atomic.write_text(folder / "evaluation.json", json.dumps(figures, indent=2, ensure_ascii=False) + "\n")
    say(in_words(figures))
    say(f"the run is in {folder}, its pictures in {folder / 'plots'}")
    return figures


def label_counts(source: Source, classes: int) -> np.ndarray:
    """How many images have each class, ``(K,)`` int64."""
    counts: Counter[int] = Counter()
    for index in range(len(source)):
        label = source.label(index)
        if isinstance(label, Label):
            counts[label.index] += 1
        elif isinstance(label, Labels):
            counts.update(label.indices)
    return np.array([counts[k] for k in range(classes)], dtype=np.int64)


def parameters(task: torch.nn.Module) -> int:
    """Number of learned values."""
    return sum(parameter.numel() for parameter in task.parameters())


def absolute(data: str) -> str:
    """A path in full, so that a run can be resumed from another folder; a word such as ``digits`` as it is."""
    return str(Path(data).resolve()) if Path(data).exists() else data


def as_json(settings: Any) -> Any:
    """A dataclass as JSON has it."""
    return json.loads(json.dumps(dataclasses.asdict(settings), default=str))
