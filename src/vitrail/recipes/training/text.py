"""Train on text: from a file of examples to a run's folder, with the loop, the folder and the flags of images."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from vitrail import atomic
from vitrail.console import say
from vitrail.data.loader import load_batches
from vitrail.data.source import SplitName
from vitrail.data.text.batch import TextBatch
from vitrail.data.text.examples import TextData
from vitrail.data.text.rows import Rows, TrainingRows
from vitrail.data.text.tokenizers import open_tokenizer
from vitrail.errors import RunError, SettingError
from vitrail.metrics import draw
from vitrail.nn.lora import merged
from vitrail.recipes import run
from vitrail.recipes.adapt import parameters
from vitrail.recipes.evaluating.text import cut_note, draw_report, in_words, outputs_of
from vitrail.recipes.resume import as_json
from vitrail.recipes.training.choose_text import (
    TextChoice,
    balanced_chances,
    build,
    choose,
    columns,
    find_pretrained,
    find_tokenizer_for,
    kind_of,
)
from vitrail.recipes.training.settings import Train
from vitrail.tasks import TextTask
from vitrail.train import distributed, sharding
from vitrail.train.log import read_log
from vitrail.train.loop import Plan, fit
from vitrail.train.state import STATE
from vitrail.train.threads import threads_for
from vitrail.weights.load import load
from vitrail.weights.save import save_description, save_weights
from vitrail.weights.text import PretrainedText


@dataclass(frozen=True)
class TextStart:
    """What a run is made of.

    Attributes:
        settings: with the path of the data in full.
        data: the examples.
        choice: all that was left open.
        task: what is trained.
        rows: the examples of each split as inputs.
        batches: the endless ones that this process trains on.
        folder: the run's.
    """

    settings: Train
    data: TextData[Any]
    choice: TextChoice
    task: TextTask[Any]
    rows: dict[SplitName, Rows]
    batches: TrainingRows
    folder: Path


def begin(settings: Train, device: torch.device, dtype: torch.dtype) -> TextStart:
    """Open the data, choose what was left open, and make the run's folder; or find all of it again.

    Raises :class:`SettingError`, :class:`DataError` or :class:`RunError` for what cannot be.
    """
    if settings.resume is None and settings.out is not None:
        run.refuse_existing(Path(settings.out), settings.overwrite)  # before the data is looked through
    settings = replace(settings, data=run.absolute(str(settings.data)))
    data = kind_of(settings).open(str(settings.data), columns(settings), seed=settings.seed)
    if settings.resume is not None:
        return resumed(settings, data)
    for note in data.notes:
        say(note)
    pretrained = find_pretrained(settings)
    choice = choose(settings, len(data.splits["train"]), pretrained)
    say(choice.reason)
    task = from_the_beginning(settings, data, choice, pretrained)
    start = prepared(settings, data, choice, task, Path(settings.out or run.default_folder(data.name, choice.model)))
    if note := cut_note(task, list(start.rows.values())):
        say(note)
    record = {
        "settings": as_json(settings),
        "choice": asdict(choice),
        "device": str(device),
        "precision": str(dtype).removeprefix("torch."),
        "data": {
            "fingerprint": data.fingerprint(),
            "texts": {split: len(examples) for split, examples in data.splits.items()},
        },
    }
    run.start(start.folder, record, overwrite=settings.overwrite)
    return start


def resumed(settings: Train, data: TextData[Any]) -> TextStart:
    """The run as it was started: the same choices, and the same data or :class:`RunError`."""
    folder = Path(str(settings.resume))
    record = run.read(folder)
    run.refuse_other(data.fingerprint(), record, folder)
    try:
        choice = TextChoice(**record["choice"])
    except TypeError as error:
        raise RunError(f"{folder / run.RECORD} is damaged ({error}); start again with --overwrite.") from error
    if (folder / STATE).is_file():
        task = build(settings, data, choice, open_tokenizer(folder))
    else:
        task = from_the_beginning(settings, data, choice, find_pretrained(settings))
    return prepared(settings, data, choice, task, folder)


def from_the_beginning(
    settings: Train, data: TextData[Any], choice: TextChoice, pretrained: PretrainedText | None
) -> TextTask[Any]:
    """The task with the weights that training starts from, and with their tokenizer."""
    if pretrained is None:
        return build(settings, data, choice, find_tokenizer_for(settings, data, choice))
    return build(settings, data, choice, pretrained.tokenizer, pretrained)


def prepared(settings: Train, data: TextData[Any], choice: TextChoice, task: TextTask[Any], folder: Path) -> TextStart:
    """The examples as inputs, and the batches of them."""
    rows = {split: task.rows(examples) for split, examples in data.splits.items()}
    chances = balanced_chances(data) if settings.balance == "sampling" else None
    place = (distributed.rank(), distributed.world())
    batches = TrainingRows(rows["train"], choice.batch_size, settings.seed, chances, *place)
    return TextStart(settings, data, choice, task, rows, batches, folder)


def learn(start: TextStart, plan: Plan, device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    """The run itself: train to the end, keep the best weights, then measure with these."""
    task, choice, folder, began = start.task.to(device), start.choice, start.folder, time.perf_counter()
    say(f"{choice.model}, {parameters(task)}, on {device} in {str(dtype).removeprefix('torch.')}")

    def load_training(first: int, stop: int) -> Iterator[TextBatch]:
        yield from load_batches(start.batches, first, stop, 0)

    def validate() -> dict[str, float]:
        rows = start.rows["validation"]
        figures = task.figures(start.data.splits["validation"], rows, outputs_of(task, rows, device, dtype))
        return {name: figures[name] for name in (*task.main, "nll", "ece") if name in figures}

    def keep() -> None:
        best = merged(task, sharding.whole(task.state_dict()))
        if distributed.rank() == 0:
            save_weights(best, folder)

    if distributed.rank() == 0:
        save_description(task, folder)
    try:
        with run.resumable("train", folder), threads_for(forward_flops(start)):
            state = fit(
                task,
                load_training,
                plan,
                validate=validate,
                score=task.score,
                keep=keep,
                folder=folder,
                device=device,
                dtype=dtype,
                tensorboard=start.settings.log == "tensorboard",
            )
    except torch.OutOfMemoryError as error:
        raise SettingError(
            f"a batch of {choice.batch_size} texts does not fit into the memory of {device}; give a smaller "
            "--batch-size, a shorter --length, or cut batches into parts with --accumulate."
        ) from error
    say(f"best {task.main[task.score]} on validation {state.best:.2%}, after epoch "
        f"{state.best_step // start.batches.steps_per_epoch}")  # fmt: skip
    figures = finish(start, device, dtype)
    return figures | {"run": str(folder), "seconds": round(time.perf_counter() - began, 1)}


def finish(start: TextStart, device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    """With the best weights: fit what is fitted on validation, measure on held-out texts, draw."""
    distributed.barrier()
    folder, rows, splits = start.folder, start.rows, start.data.splits
    task = load(folder).to(device)
    assert isinstance(task, TextTask)
    outputs = outputs_of(task, rows["validation"], device, dtype)
    task.calibrate(splits["validation"], rows["validation"], outputs)
    split: SplitName = "test" if "test" in splits else "validation"
    if split == "test":
        outputs = outputs_of(task, rows["test"], device, dtype, what="evaluating")
    figures = task.figures(splits[split], rows[split], outputs) | {"split": split}
    if distributed.rank() == 0:
        save_description(task, folder)
        draw.save(draw.curves(read_log(folder / "metrics.jsonl")), folder / "plots" / "curves.png")
        draw_report(task, rows[split], outputs, figures, folder / "plots")
        atomic.write_text(folder / "evaluation.json", json.dumps(figures, indent=2, ensure_ascii=False) + "\n")
    distributed.barrier()  # no process leaves the group while another still works
    say(in_words(task, figures))
    say(f"the run is in {folder}, its pictures in {folder / 'plots'}")
    return figures


def forward_flops(start: TextStart) -> float:
    """Floating-point operations of this process's part of a batch's forward pass: two a weight and token."""
    weights = sum(parameter.numel() for parameter in start.task.backbone.parameters())
    tokens = start.choice.batch_size / distributed.world() * float(start.rows["train"].lengths.mean())
    return 2.0 * weights * tokens
