"""Export to one file that runs without Vitrail, ONNX or a PyTorch program, with a report of what it cost."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

import vitrail
from vitrail import atomic
from vitrail.console import say
from vitrail.data.loader import UnreadableImages
from vitrail.errors import SettingError
from vitrail.export import onnx, parity, program
from vitrail.export.predictor import Exported, open_onnx
from vitrail.metrics.classification import LogitMetric
from vitrail.recipes.evaluating.evaluate import held_out, measure
from vitrail.recipes.evaluating.settings import Evaluate
from vitrail.recipes.exporting.settings import Export
from vitrail.tasks import Classification
from vitrail.tasks.classifier import Classifier

SUFFIXES = {"onnx": ".onnx", "program": ".pt2"}


def export_file(settings: Export, open_task: Callable[[], Classification]) -> dict[str, Any]:
    """Write the file, open it again, compare it with the task, and write the report beside it.

    Raises :class:`SettingError` for a file that is there, or that is not called as its kind is.
    """
    path = place(settings)
    if settings.to == "onnx":
        onnx.need_onnx()
    task = open_task().float()
    if settings.to == "onnx":
        onnx.write_onnx(task, path, int8=settings.int8)
        exported = open_onnx(path)
    else:
        program.write_program(task, path)
        exported = Exported(program.describe(task), program.read_program(path))
    answer = report(settings, task, exported, path)
    beside = Path(f"{path}.parity.json")
    atomic.write_text(beside, json.dumps(answer, indent=2, ensure_ascii=False) + "\n")
    if not settings.json:
        Console().print(parity.as_table(answer))
    say(f"{task.model} is in {path}, compared on {answer['images']}; the report is in {beside}")
    if not answer["passed"]:
        say(f"vitrail: {failure(answer)}")
    return answer


def place(settings: Export) -> Path:
    """The file that is written."""
    suffix = SUFFIXES[settings.to]
    name = settings.run.replace(":", "-").rstrip("/\\")
    name += (f"-merge-{settings.merge}" if settings.merge else "") + ("-int8" if settings.int8 else "")
    path = settings.out or Path(name + suffix)
    if path.suffix != suffix:
        raise SettingError(f"a file of --to {settings.to} ends in {suffix}; call it --out {path.with_suffix(suffix)}.")
    if path.is_dir() or (path.exists() and not settings.overwrite):
        raise SettingError(f"{path} is there already; choose another --out, or write over a file with --overwrite.")
    return path


def report(settings: Export, task: Classification, exported: Exported, path: Path) -> dict[str, Any]:
    """All that is known of an export, ready for JSON; the words of docs/export.md."""
    models: dict[str, Classifier] = {"before": task, "after": exported}
    scores = None
    if settings.data is None:
        images, pictures = parity.pictures(task.preprocess)
        logits = {name: parity.logits_of(model, pictures) for name, model in models.items()}
    else:
        images, metrics = measured(settings, models)
        logits = {name: metric.logits for name, metric in metrics.items()}
        figures = {name: metric.compute() for name, metric in metrics.items()}
        words = {"map": "mAP"} if task.many_labels else {"top1": "accuracy"}
        scores = {word: {name: each[key] for name, each in figures.items()} for key, word in words.items()}
    weights = sum(tensor.nbytes for tensor in task.state_dict().values())
    files = [path, Path(f"{path}.data")]
    return {
        "file": str(path),
        "to": settings.to,
        "int8": settings.int8,
        "merge": settings.merge,
        "model": task.model,
        "images": images,
        **parity.compare(logits["before"], logits["after"], many_labels=task.many_labels, int8=settings.int8),
        "scores": scores,
        "bytes": {"before": weights, "after": sum(each.stat().st_size for each in files if each.is_file())},
        "milliseconds": parity.times(models, task.preprocess),
        "threads": torch.get_num_threads(),
        "versions": versions(settings.to),
    }


def measured(settings: Export, models: dict[str, Classifier]) -> tuple[str, dict[str, LogitMetric]]:
    """What the images of DATA are, and the figures of each model on them, in float32."""
    evaluation = Evaluate(
        settings.run,
        settings.data,
        format=settings.format,
        image_column=settings.image_column,
        label_column=settings.label_column,
    )
    split, source = held_out(evaluation, models["before"])
    device, unreadable = torch.device("cpu"), UnreadableImages(len(source), evaluation.max_unreadable)
    metrics = {
        name: measure(model, source, device, torch.float32, unreadable, what=f"evaluating, {name}")
        for name, model in models.items()
    }
    count = len(metrics["before"].logits)
    return f"{count:,} images of {settings.data}" + ("" if split == "all" else f", {split}"), metrics


def versions(to: str) -> dict[str, Any]:
    """Of all that made the file."""
    answer: dict[str, Any] = {"vitrail": vitrail.__version__, "torch": str(torch.__version__)}
    if to == "onnx":
        import onnxruntime

        answer |= {"opset": onnx.OPSET, "onnx": onnx.need_onnx().__version__, "onnxruntime": onnxruntime.__version__}
    return answer


def failure(answer: dict[str, Any]) -> str:
    """Why an export is not to be trusted, in a sentence."""
    if answer["int8"]:
        return (
            f"with weights of 8 bits only {answer['agreement']:.1%} of the labels stay the same, below "
            f"{answer['least_agreement']:.0%}; export without --int8."
        )
    return (
        f"the exported logits differ by {answer['max_difference']:.2g}, more than {answer['tolerance']:.2g}; "
        "do not use the file, and report the model."
    )
