"""How good a model of text is at its task, on texts that it has not seen."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vitrail import atomic
from vitrail.console import progress, say
from vitrail.data.loader import load_batches
from vitrail.data.source import SplitName
from vitrail.data.text.examples import TextData
from vitrail.data.text.labelled import Columns
from vitrail.data.text.rows import EvaluationRows, Rows
from vitrail.errors import RunError, SettingError
from vitrail.metrics import calibration, draw
from vitrail.nn.inference import ready
from vitrail.recipes import run
from vitrail.recipes.evaluating.settings import Evaluate
from vitrail.tasks import TextClassification, TextTask
from vitrail.tasks.text_task import Outputs
from vitrail.train import distributed
from vitrail.train.precision import choose_device, choose_precision, products_in


def evaluate_text(settings: Evaluate, task: TextTask[Any]) -> dict[str, Any]:
    """Figures on what training held back, or on DATA; with pictures in the run's folder for its own data.

    Raises :class:`SettingError` if there is no data, or not that part of it, and what opening it raises.
    """
    folder, device = Path(settings.run), choose_device(settings.device)
    dtype = choose_precision(device, settings.precision)
    split, examples = held_out(settings, task)
    rows = task.rows(examples)
    if note := cut_note(task, [rows]):
        say(note)
    began = time.perf_counter()
    ready(task.to(device), dtype)
    outputs = outputs_of(task, rows, device, dtype, batch_size=settings.batch_size, what="evaluating")
    seconds = time.perf_counter() - began
    speed = {"split": split, "texts_per_second": round(len(examples) / seconds, 2)}
    figures = task.figures(examples, rows, outputs) | speed
    if not settings.json:
        say(in_words(task, figures))
    out = settings.out or (folder if settings.data is None else None)
    if out is None:
        return figures
    try:
        draw_report(task, rows, outputs, figures, out / "plots")
        atomic.write_text(out / "evaluation.json", json.dumps(figures, indent=2, ensure_ascii=False) + "\n")
        say(f"pictures are in {out / 'plots'}")
    except OSError as error:  # somebody else's run may well be measured
        say(f"no pictures, for {out} cannot be written: {(error.strerror or '').lower()}")
    return figures


def held_out(settings: Evaluate, task: TextTask[Any]) -> tuple[str, Sequence[Any]]:
    """The name of the part to measure on, and its examples."""
    data = training_data(settings, task) if settings.data is None else given_data(settings, task)
    wanted: tuple[SplitName, ...] = (settings.split,) if settings.split != "auto" else ("test", "validation", "train")
    split = next((name for name in wanted if name in data.splits), None)
    if split is None:
        raise SettingError(f"{data.name} has no {settings.split} split; it has {', '.join(data.splits)}.")
    only_one = len(data.splits) == 1 and settings.data is not None  # and it has no name of its own
    return "all" if only_one else split, data.splits[split]


def given_data(settings: Evaluate, task: TextTask[Any]) -> TextData[Any]:
    """Other data than the run's own, with the splits that they have."""
    columns = Columns(settings.text_column, settings.pair_column, settings.label_column)
    return task.open(str(settings.data), columns, as_given=True)


def training_data(settings: Evaluate, task: TextTask[Any]) -> TextData[Any]:
    """The data of a run, parted as they were then. Raises :class:`RunError` if they are not the same any more."""
    folder = Path(settings.run)
    if not (folder / run.RECORD).is_file():
        raise SettingError(f"{folder} was not trained here; name the data: vitrail evaluate {folder} DATA.")
    record = run.read(folder)
    stated = record["settings"]
    try:
        columns = Columns(stated["text_column"], stated["pair_column"], stated["label_column"])
        data = task.open(stated["data"], columns, seed=stated["seed"])
    except KeyError as error:
        raise RunError(f"{folder / run.RECORD} is damaged: it has no {error}; name the data to measure on.") from error
    if data.fingerprint() != record["data"]["fingerprint"]:
        raise RunError(
            f"{data.name} is no longer what {folder} was trained on; name the texts to measure on: "
            "`vitrail evaluate RUN DATA`."
        )
    return data


def outputs_of(
    task: TextTask[Any],
    rows: Rows,
    device: torch.device,
    dtype: torch.dtype,
    *,
    batch_size: int = 64,
    what: str | None = None,
) -> Outputs:
    """What the task says of each row, shared among all processes; ``what`` names the work in the progress bar."""
    batches = EvaluationRows(rows, batch_size, distributed.rank(), distributed.world())
    found: dict[int, NDArray[np.float32]] = {}
    training = task.training
    task.eval()
    bar = progress(what, len(batches), unit="batch") if what else nullcontext(lambda done: None)
    with bar as advance:
        for done, (batch, numbers) in enumerate(load_batches(batches, 0, len(batches), 0), 1):
            with torch.inference_mode(), products_in(dtype, device):
                found.update(zip(numbers, task.outputs(batch.to(device)), strict=True))
            advance(done)
    task.train(training)
    for share in distributed.gather(found):
        found |= share
    return [found[number] for number in range(len(rows))]


def draw_report(task: TextTask[Any], rows: Rows, outputs: Outputs, figures: dict[str, Any], folder: Path) -> None:
    """Each class's scores as a picture; of one class a text also the confusion, and the reliability of its scores."""
    if "per_class" in figures:
        bars = [{**row, "images": next(reversed(row.values()))} for row in figures["per_class"]]
        draw.save(draw.per_class_bars(bars), folder / "per_class.png")
    if isinstance(task, TextClassification):
        draw.save(draw.confusion(np.array(figures["confusion"]), task.classes), folder / "confusion.png")
        metric = task.metric(rows, outputs)
        tables = {
            name: calibration.reliability(*calibration.top_class(metric.logits / temperature, metric.targets))
            for name, temperature in (("as trained", 1.0), ("calibrated", task.temperature))
        }
        draw.save(draw.reliability_diagram(tables), folder / "reliability.png")


def cut_note(task: TextTask[Any], parts: Sequence[Rows]) -> str:
    """How many examples were too long, in a sentence; empty if none was."""
    cut, all_of_them = sum(rows.cut for rows in parts), sum(len({row.example for row in rows.rows}) for rows in parts)
    if not cut:
        return ""
    return (
        f"{cut:,} of {all_of_them:,} {task.counted} are longer than {task.length} tokens; what is beyond was cut "
        f"(--length says how long they may be; the context of {task.model} is {task.backbone.config.context})."
    )


def in_words(task: TextTask[Any], figures: dict[str, Any]) -> str:
    """The main figures as a line or two."""
    of_split = f" of {figures['split']}" if figures["split"] != "all" else ""
    words = ", ".join(f"{word} {figures[name]:.2%}" for name, word in task.main.items())
    line = f"{figures['texts']:,} {task.counted}{of_split}: {words}"
    if "ece" not in figures:
        return line
    return (
        f"{line}\ncalibration error {figures['ece']:.2%} as trained, {figures['ece_calibrated']:.2%} with the "
        f"temperature {figures['temperature']:.3g}"
    )
