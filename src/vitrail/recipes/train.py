"""Train: from a folder of images to a run's folder with the best weights, the figures and the pictures."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from tyro.conf import Positional

from vitrail import atomic
from vitrail.console import say
from vitrail.data.cache import cached
from vitrail.data.loader import MAX_UNREADABLE, UnreadableImages, default_workers, load_batches
from vitrail.data.sample import Batch
from vitrail.data.source import SplitName
from vitrail.errors import Interrupted, SettingError
from vitrail.metrics import calibration, draw
from vitrail.metrics.classification import ClassificationMetric, LogitMetric
from vitrail.nn.lora import merged
from vitrail.objectives.distill import Kind
from vitrail.recipes import choose_text, run, train_text
from vitrail.recipes.adapt import Adapt, parameters
from vitrail.recipes.choose import Choice
from vitrail.recipes.choose_text import TextChoice
from vitrail.recipes.evaluate import draw_report, in_words, measure, report
from vitrail.recipes.models import forward_flops
from vitrail.recipes.resume import as_started
from vitrail.recipes.settings import Changes, LeftOpen
from vitrail.recipes.start import Start, check, resumed, started, training_batches, with_full_paths
from vitrail.tasks import TEXT_TASKS
from vitrail.tasks.classification import Classification
from vitrail.train import distributed, sharding
from vitrail.train.log import read_log
from vitrail.train.loop import Plan, fit
from vitrail.train.optim import OptimizerName
from vitrail.train.precision import Precision, choose_device, choose_precision
from vitrail.train.threads import threads_for
from vitrail.weights.load import load
from vitrail.weights.save import save_description, save_weights


@dataclass(frozen=True)
class Train:
    """Train a model on your images or texts; what you leave open is chosen for your data, and said.

    Examples:
      vitrail train photos/
      vitrail train photos/ --model vit-s16 --image-size 160 --epochs 50 --out runs/photos
      vitrail train photos/ --weights timm:vit_base_patch16_224.augreg_in21k --adapt lora
      vitrail train photos/ --model deit-ti16-distilled --teacher runs/photos
      vitrail train labels.csv --balance sampling --augment strong --weights none
      vitrail train --resume runs/photos
      torchrun --nproc-per-node 2 -m vitrail train photos/
      vitrail train reviews.csv --task text-classification --weights runs/my-bert
    """

    data: Positional[LeftOpen[str]] = None
    """A folder of class folders, a table of paths and labels, or another kind of data that `vitrail info` knows; for a
    task of text what docs/text-tasks.md shows."""
    task: str = "classification"
    """What is learned: classification, of images; of text text-classification, text-pair, tagging, answer."""
    out: LeftOpen[Path] = None
    """The run's folder; left out: runs/DATA-MODEL."""
    resume: LeftOpen[Path] = None
    """Go on with this run, exactly where it was and as it was started; no other flags are needed."""
    overwrite: bool = False
    """Replace the run that is in --out."""
    model: str = "auto"
    """A name from `vitrail models`."""
    config: Changes = ()
    """Changes to the model, such as: patch_size=8 position=rotary pool=map registers=4 drop_path=0.1."""
    weights: str = "auto"
    """What to start from: a run's folder, hf:ORG/NAME, timm:NAME, a file (with --layout and --model); none for random
    weights; auto for the published ones that `vitrail models` shows for the model."""
    layout: LeftOpen[str] = None
    """Whose names the tensors of a file in --weights have: timm, torchvision, google, paper …"""
    recipe: LeftOpen[str] = None
    """What a paper set: deit, augreg, swin, bit, mae-finetune; or small, ours. What you set yourself stays."""
    adapt: Adapt = "full"
    """What is trained: full, all; head, the classifier alone; lora, that and low-rank changes to the attention."""
    freeze: int = 0
    """Lowest layers that stay as they are; the stem is layer 0, then come the blocks."""
    lora_rank: int = 8
    """Rank of the changes with --adapt lora."""
    teacher: LeftOpen[str] = None
    """A trained model of the same classes whose answers are learned beside the labels: a run's folder, hf:ORG/NAME …"""
    distill: Kind = "hard"
    """What is learned of the teacher: hard, its most probable class; soft, all its probabilities."""
    image_size: LeftOpen[int] = None
    """Side of the images in pixels, as the model sees them; left out: chosen for the data."""
    epochs: LeftOpen[int] = None
    """How many times to go through the training images; left out: chosen for the data."""
    batch_size: LeftOpen[int] = None
    """Images in a step, over all processes; left out: chosen for the data."""
    learning_rate: LeftOpen[float] = None
    """Peak learning rate; left out: 0.001, for SGD 0.02; a quarter of it where trained weights go on learning."""
    optimizer: OptimizerName = "adamw"
    """AdamW, or SGD with momentum."""
    weight_decay: float = 0.05
    """Of matrices and kernels; norms, biases, positions and tokens never decay."""
    layer_decay: LeftOpen[float] = None
    """Factor of the learning rate from each layer to the one below; left out: 1, for trained weights the family's."""
    warmup_epochs: LeftOpen[float] = None
    """Epochs until the learning rate is at its peak; left out: a tenth of all, at most 5."""
    clip: float = 1.0
    """Largest norm of the gradient; 0 for any."""
    accumulate: int = 1
    """Parts into which each batch is cut to save memory."""
    recompute: bool = False
    """Keep no activations inside of blocks, and compute them again (gradient checkpointing): less memory, more time."""
    ema: float = 0.0
    """Decay of a moving average of the weights, such as 0.999; 0 for none."""
    patience: int = 0
    """Stop after so many epochs without a better score; 0 for never."""
    augment: Literal["auto", "none", "light", "strong"] = "auto"
    """How much chance changes each image: crops, shifts, colours; auto is light."""
    flip: Literal["auto", "yes", "no"] = "auto"
    """Mirror images by chance; auto: only colour ones, for a mirrored sign is another sign."""
    mixup: float = 0.0
    """Strength of Mixup, which blends pairs of images and labels, such as 0.8; 0 for none."""
    cutmix: float = 0.0
    """Strength of CutMix, which pastes a part of one image into another, such as 1.0; 0 for none."""
    label_smoothing: float = 0.1
    """Share of each label that is spread over all classes."""
    balance: Literal["none", "sampling", "weights"] = "none"
    """For classes of very different sizes: draw each class equally often, or weight its loss."""
    share: float = 1.0
    """Train on this share of the training images, such as 0.1; each is seen so much more often."""
    format: LeftOpen[str] = None
    """How DATA is stored, where looking at it does not tell: folder, csv, parquet …"""
    image_column: LeftOpen[str] = None
    """The column of a table that holds the images' paths; left out: image, path, file …"""
    label_column: LeftOpen[str] = None
    """The column of a table that holds the labels; left out: label, class, category …"""
    text_column: LeftOpen[str] = None
    """The column of a table that holds the texts; several with commas between; a number in a table without a header."""
    pair_column: LeftOpen[str] = None
    """The column of the second text of each pair; left out: sentence2, hypothesis …"""
    length: LeftOpen[int] = None
    """Most tokens of a text; longer ones are cut. Left out: as many as the model takes."""
    tokenizer: LeftOpen[str] = None
    """How text becomes tokens where no trained weights say it: words, characters, or a tokenizer's file or folder."""
    vocabulary: int = 8000
    """Most tokens of a tokenizer that is learned from the texts."""
    max_unreadable: float = MAX_UNREADABLE
    """Share of images that may be unreadable before training stops."""
    workers: LeftOpen[int] = None
    """Processes that read images; changes the speed only. Left out: chosen for the machine."""
    cache: str = "none"
    """Keep decoded images for the next epoch, and run: none; auto, in at most a quarter of the disk's free space; or a
    size such as 4GiB. Changes the speed only; `vitrail cache` shows what is kept."""
    device: str = "auto"
    """cpu, cuda, mps, or auto for the best there is."""
    precision: Precision = "auto"
    """Format of matrix products; auto is bfloat16 where the machine has it."""
    shard: bool = False
    """Under torchrun: spread weights and optimizer over the processes (FSDP2) instead of copying them."""
    save_seconds: float = 60.0
    """Seconds from one saved state for --resume to the next; changes no result."""
    log: Literal["none", "tensorboard"] = "none"
    """Write TensorBoard events, too."""
    seed: int = 0
    """Another seed is another run; the same one is the same run."""
    json: bool = False
    """Print the figures as one JSON document."""


def train(settings: Train) -> dict[str, Any]:
    """Train, or go on with a run; returns the figures on the test split (or validation, where there is no test)."""
    check(settings)
    if settings.resume is None:
        choose_text.check(settings)
    else:
        settings = as_started(settings, "train", with_full_paths)
    with distributed.process_group(choose_device(settings.device)) as device:
        dtype = choose_precision(device, settings.precision)
        if settings.task in TEXT_TASKS:
            return on_text(settings, device, dtype)
        if settings.resume is not None:
            return learn(resumed(settings), device, dtype)
        start = started(settings, device, dtype)
        with run.removed_after_mistake(start.folder):
            return learn(start, device, dtype)


def on_text(settings: Train, device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    """The same for a task of text."""
    text = train_text.begin(settings, device, dtype)
    with run.removed_after_mistake(text.folder):
        return train_text.learn(text, plan(settings, text.choice, text.batches.steps_per_epoch), device, dtype)


def learn(start: Start, device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    """The run itself: train to the end, keep the best weights, then measure with these."""
    settings, dataset, choice, task, learner, folder = start
    dataset = cached(dataset, settings.cache)
    began = time.perf_counter()
    learner.to(device)
    say(f"{choice.model}, {parameters(task)}, on {device} in {str(dtype).removeprefix('torch.')}")

    batches = training_batches(settings, dataset, choice, task)
    workers = default_workers(len(batches.source)) if settings.workers is None else settings.workers
    unreadable = {split: UnreadableImages(len(of), settings.max_unreadable) for split, of in dataset.splits.items()}

    def load_training(start: int, stop: int) -> Iterator[Batch]:
        for batch in load_batches(batches, start, stop, workers):
            unreadable["train"].note(batch.unreadable)
            yield batch

    def measured(task: Classification, split: SplitName, **options: Any) -> LogitMetric:
        source = dataset.splits[split]
        return measure(task, source, device, dtype, unreadable[split], workers=settings.workers, **options)

    def validate() -> dict[str, float]:
        figures = measured(task, "validation", through=learner).compute()
        return {key: figures[key] for key in (task.score, "macro_f1", "nll", "ece")}

    def keep() -> None:
        best = merged(task, sharding.whole(task.state_dict()))
        if distributed.rank() == 0:
            save_weights(best, folder)

    if distributed.rank() == 0:
        save_description(task, folder)
    try:
        with threads_for(choice.batch_size / batches.world * forward_flops(choice.model, **choice.changes)):
            state = fit(
                learner,
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
    except Interrupted as stopped:
        remedy = f"Go on with: vitrail train --resume {folder}"
        raise Interrupted(f"{stopped} {remedy}", stopped.exit_status - 128) from stopped
    except torch.OutOfMemoryError as error:
        raise SettingError(
            f"a batch of {choice.batch_size} images does not fit into the memory of {device}; give a smaller "
            "--batch-size, or save memory with --accumulate or --recompute."
        ) from error
    score = {"top1": "accuracy", "map": "mean average precision"}[task.score]
    say(f"best {score} on validation {state.best:.2%}, after epoch {state.best_step // batches.steps_per_epoch}")
    figures = finish(folder, "test" if "test" in dataset.splits else "validation", device, measured)
    return figures | {"run": str(folder), "seconds": round(time.perf_counter() - began, 1)}


def plan(settings: Train, choice: Choice | TextChoice, steps_per_epoch: int) -> Plan:
    """Epochs as steps."""
    return Plan(
        steps=choice.epochs * steps_per_epoch,
        steps_per_epoch=steps_per_epoch,
        learning_rate=choice.learning_rate,
        optimizer=settings.optimizer,
        weight_decay=settings.weight_decay,
        warmup=round(choice.warmup_epochs * steps_per_epoch),
        layer_decay=choice.layer_decay,
        clip=settings.clip,
        accumulate=settings.accumulate,
        recompute=settings.recompute,
        ema=settings.ema,
        patience=settings.patience,
        log_every=max(1, steps_per_epoch // 10),
        save_seconds=settings.save_seconds,
        shard=settings.shard,
        seed=settings.seed,
    )


def finish(
    folder: Path, split: SplitName, device: torch.device, measured: Callable[..., LogitMetric]
) -> dict[str, Any]:
    """With the best weights: fit the temperature, measure on held-out images, draw; each process measures its share."""
    distributed.barrier()
    task = load(folder).to(device)
    assert isinstance(task, Classification)
    validation = measured(task, "validation")
    if isinstance(validation, ClassificationMetric):
        task.temperature = round(calibration.fit_temperature(validation.logits, validation.targets), 4)
    metric = measured(task, split, what="evaluating") if split != "validation" else validation
    figures = report(task, metric) | {"split": split}
    if distributed.rank() == 0:
        save_description(task, folder)
        draw.save(draw.curves(read_log(folder / "metrics.jsonl")), folder / "plots" / "curves.png")
        draw_report(task, metric, figures, folder / "plots")
        atomic.write_text(folder / "evaluation.json", json.dumps(figures, indent=2, ensure_ascii=False) + "\n")
    distributed.barrier()  # no process leaves the group while another still works
    say(in_words(figures))
    say(f"the run is in {folder}, its pictures in {folder / 'plots'}")
    return figures
