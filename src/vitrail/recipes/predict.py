"""Predict: labels and scores for files, folders, patterns, or what comes from standard input."""

from __future__ import annotations

import glob
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tyro.conf import Positional

from vitrail.console import say
from vitrail.data.files import Files
from vitrail.data.loader import default_workers, load_batches
from vitrail.data.proportions import PackedBatch, Proportions
from vitrail.data.read import is_image
from vitrail.data.sample import Batch
from vitrail.errors import DataError
from vitrail.export.predictor import Exported
from vitrail.nn.inference import ready
from vitrail.recipes.alike import alike
from vitrail.recipes.opened import classification, open_model
from vitrail.recipes.packing import batches_of, packed_logits, packing
from vitrail.recipes.predict_text import predict_text
from vitrail.recipes.settings import UNSTATED, Images, LeftOpen, Stated, check_numbers
from vitrail.tasks import TextTask
from vitrail.tasks.classifier import Classifier
from vitrail.train.precision import Precision, choose_device, choose_precision, products_in


@dataclass(frozen=True)
class Predict:
    """Say what is in images, or of texts what the model was trained to say: with scores, the most probable first.

    Examples:
      vitrail predict runs/clothing shirt.jpg
      vitrail predict runs/clothing photos/ 'more/*.png' --json
      vitrail predict hf:google/vit-base-patch16-224 cat.jpg
      vitrail predict clothing.onnx shirt.jpg
      vitrail predict hf:google/vit-base-patch16-224 photos/ --pack
      find . -name '*.jpg' | vitrail predict runs/clothing -
      vitrail predict runs/reviews "a quiet, moving film" more-reviews.txt
      vitrail predict runs/squad "Who wrote it? ||| The book was written by Ada Lovelace in 1843."
    """

    run: Positional[str]
    """A run's folder; published weights: hf:ORG/NAME, timm:NAME, or a file (with --layout and --model); or what
    `vitrail export --to onnx` wrote."""
    images: Positional[Images]
    """Files, folders, patterns; or - for an image, or a list of paths, on standard input. For a model of text: texts
    (pieces with ||| between), files with a text in each line, tables; or - for lines on standard input."""
    top: int = 5
    """How many labels to give for each image."""
    text_column: LeftOpen[str] = None
    """The column of a table that holds the texts; left out: text, sentence, content …"""
    pair_column: LeftOpen[str] = None
    """The column of the second text of each pair; left out: sentence2, hypothesis …"""
    batch_size: int = 32
    """Images computed at once; changes the speed only."""
    pack: bool = False
    """Keep each image's proportions, and compute images of several sizes as one row without padding (ViT, DeiT, DINOv3,
    RoPE-ViT)."""
    pack_tokens: LeftOpen[int] = None
    """Most patches of an image with --pack; left out: as many as the model's own image size has."""
    workers: LeftOpen[int] = None
    """Processes that read images; left out: chosen for the machine."""
    merge: int = 0
    """Token merging: pairs of tokens that become one in each block of a vision transformer. Faster, at some cost in
    accuracy, which `vitrail evaluate --merge` tells; try 8 to 16 at 224 pixels."""
    device: str = "auto"
    """cpu, cuda, mps, or auto for the best there is."""
    precision: Precision = "auto"
    """Format of matrix products; auto is bfloat16 where the machine has it."""
    stated: Stated = UNSTATED
    json: bool = False
    """Print one JSON document: a list of {"image", "predictions": [{"label", "score"}], "error"}."""


def predict(settings: Predict) -> list[dict[str, Any]]:
    """Predictions in the order of the images; a broken image has its ``error``, and no predictions."""
    check_numbers(settings)
    opened = open_model(settings.run, settings.stated, settings.merge)
    proportions = packing(settings, opened)
    if isinstance(opened, TextTask):
        return predict_text(settings, opened)
    task = opened if isinstance(opened, Exported) else classification(settings.run, opened)
    files = Files(find_images(settings.images))
    device = choose_device(settings.device)
    dtype = choose_precision(device, settings.precision)
    answers = []
    for answer in _answers(ready(task.to(device), dtype), files, settings, device, dtype, proportions):
        answers.append(answer)
        if settings.json:
            continue
        if answer["error"]:
            say(f"{answer['image']}: cannot be read: {answer['error']}")
        else:
            print(_line(answer), flush=True)
    return answers


def find_images(words: Sequence[str]) -> list[Path | tuple[str, bytes]]:
    """The images that words of the command line stand for. Raises :class:`DataError` for a word without any."""
    found: list[Path | tuple[str, bytes]] = []
    for word in words:
        here = list(_images_of(word))
        if not here:
            where = "on standard input" if word == "-" else f"at '{word}'"
            raise DataError(f"there is no image {where}; give files, folders or patterns such as 'photos/*.jpg'.")
        found += here
    if not found:
        raise DataError("no image was given; give files, folders or patterns such as 'photos/*.jpg'.")
    return found


def _images_of(word: str) -> Iterator[Path | tuple[str, bytes]]:
    path = Path(word)
    if word == "-":
        yield from _standard_input(sys.stdin.buffer.read())
    elif path.is_dir():
        yield from (file for file in sorted(path.rglob("*")) if is_image(file.name) and file.is_file())
    elif path.exists() or not glob.has_magic(word):
        yield path
    else:
        yield from (Path(match) for match in sorted(glob.glob(word, recursive=True)))  # noqa: PTH207 - may be absolute


def _standard_input(data: bytes) -> Iterator[Path | tuple[str, bytes]]:
    """A list of paths, one a line, or the bytes of one image, of which no format is UTF-8 text without a zero."""
    try:
        lines = data.decode().splitlines()
    except UnicodeDecodeError:
        lines = []
    if lines and b"\0" not in data:
        yield from (Path(line) for line in lines if line.strip())
    elif data:
        yield "-", data


def _answers(
    task: Classifier,
    files: Files,
    settings: Predict,
    device: torch.device,
    dtype: torch.dtype,
    proportions: Proportions | None,
) -> Iterator[dict[str, Any]]:
    batches = batches_of(files, task, proportions, settings.batch_size)
    workers = default_workers(len(files)) if settings.workers is None else settings.workers
    for step, (batch, numbers) in enumerate(load_batches(batches, 0, len(batches), workers)):
        predictions = {}
        if len(batch):
            logits = _logits(task, batch.to(device), dtype)
            predictions = dict(zip(numbers, task.decode(logits, settings.top), strict=True))
        reasons = {error.name: error.reason for error in batch.unreadable}
        first = step * settings.batch_size
        for number in range(first, min(first + settings.batch_size, len(files))):
            name = files.name(number)
            scored = [asdict(prediction) for prediction in predictions.get(number, ())]
            yield {"image": name, "predictions": scored, "error": None if scored else reasons[name]}


def _logits(task: Classifier, batch: Batch | PackedBatch, dtype: torch.dtype) -> Tensor:
    if isinstance(batch, Batch):
        return alike(task, batch.images, dtype)
    with torch.inference_mode(), products_in(dtype, batch.rows[0][0].device):
        return packed_logits(task, batch)


def _line(answer: dict[str, Any]) -> str:
    return f"{answer['image']}: " + ", ".join(f"{p['label']} {p['score']:.1%}" for p in answer["predictions"])
