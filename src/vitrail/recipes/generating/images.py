"""How a model of the next pixel paints: whole images, or the lower half of given ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch
from torch import Tensor

from vitrail import atomic
from vitrail.console import progress, say
from vitrail.data.files import Files
from vitrail.data.sample import Image
from vitrail.errors import DataError, SettingError, UnreadableImage
from vitrail.nn.sampling import sample
from vitrail.objectives.pixels import NextPixel
from vitrail.recipes.generating.settings import Generate
from vitrail.recipes.given import find_images
from vitrail.train.precision import choose_device, choose_precision, products_in

OUT = Path("generated.png")
TEMPERATURE = 1.0  # images that are as varied as those that were learned from
TOGETHER = 64  # images that are painted at once
TILE, GAP = 96, 4  # least pixels of an image's side on the sheet, and between two of them
BLANK = 128  # the grey of what is not given


def generate_images(settings: Generate, learner: NextPixel) -> list[dict[str, Any]]:
    """Paint ``count`` images, or ``count`` completions of each image that is given, and draw them on one sheet.

    Returns an entry for each picture that was painted: the ``image`` that it completes, or None, and its place on the
    sheet ``out``, ``row`` and ``column``; then one with an ``error`` for each image that cannot be read.

    Raises :class:`SettingError` for a prompt or beams, :class:`DataError` if no image can be read.
    """
    if settings.prompt is not None or settings.beams > 1:
        raise SettingError(f"{settings.run} paints images; leave out --prompt and --beams.")
    learner, out = learner.to(choose_device(settings.device)), settings.out or OUT
    if settings.images:
        return complete(settings, learner, out)
    tiles = as_images(learner, paint(learner, start(learner, settings.count), settings))
    columns = math.ceil(math.sqrt(len(tiles)))
    rows = [tiles[first : first + columns] for first in range(0, len(tiles), columns)]
    write_sheet(rows, out)
    say(f"{settings.count} images, painted from nothing, are in {out}")
    return [
        {"image": None, "out": str(out), "row": number // columns, "column": number % columns, "error": None}
        for number in range(len(tiles))
    ]


def complete(settings: Generate, learner: NextPixel, out: Path) -> list[dict[str, Any]]:
    """Paint the lower half of each image; a row of the sheet has it, its upper half, and its completions."""
    names, images, broken = read_images(settings, learner)
    given = upper_halves(learner, images)
    tiles = as_images(learner, paint(learner, given.repeat_interleave(settings.count, dim=0), settings))
    per_image = [tiles[row * settings.count : (row + 1) * settings.count] for row in range(len(images))]
    rows = [[image, half_of(image), *painted] for image, painted in zip(images, per_image, strict=True)]
    write_sheet(rows, out)
    say(f"{len(images)} images are in {out}, one a row: whole, what was given of it, and {settings.count} completions")
    painted = [
        {"image": name, "out": str(out), "row": row, "column": column, "error": None}
        for row, name in enumerate(names)
        for column in range(2, 2 + settings.count)
    ]
    nowhere = {"out": None, "row": None, "column": None}
    return painted + [{"image": error.name, **nowhere, "error": error.reason} for error in broken]


def read_images(settings: Generate, learner: NextPixel) -> tuple[list[str], list[Image], list[UnreadableImage]]:
    """Names and pixels ``(h, w, C)`` uint8 of the given images, as the model sees them; and those that are broken."""
    files = Files(find_images(settings.images))
    names, images, broken = [], [], []
    for index in range(len(files)):
        try:
            images.append(learner.preprocess.view(files.sample(index).image)[0])
            names.append(files.name(index))
        except UnreadableImage as error:
            say(f"left out: {error}")
            broken.append(error)
    if not images:
        raise DataError(f"none of the given images can be read (the last: {broken[-1]}).")
    return names, images, broken


def start(learner: NextPixel, count: int) -> Tensor:
    """So many images of which nothing is known, ``(count, 0)`` int64."""
    return torch.empty(count, 0, dtype=torch.int64, device=learner.output.weight.device)


def upper_halves(learner: NextPixel, images: Sequence[Image]) -> Tensor:
    """The colours of the upper half of each image, ``(B, n)`` int64."""
    pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).to(learner.output.weight.device)
    height, width = learner.backbone.config.image_size
    return learner.backbone.numbers(learner.normalized(pixels))[:, : height // 2 * width]


def half_of(image: Image) -> Image:
    """The image with its lower half blank."""
    half = image.copy()
    half[len(half) // 2 :] = BLANK
    return half


def paint(learner: NextPixel, given: Tensor, settings: Generate) -> Tensor:
    """Whole images ``(B, N)`` that begin with what is given, ``(B, n)``."""
    choose = partial(
        sample,
        generator=torch.Generator().manual_seed(settings.seed),
        temperature=TEMPERATURE if settings.temperature is None else settings.temperature,
        top_k=settings.top_k,
        top_p=settings.top_p,
    )
    parts, new = given.split(TOGETHER), learner.backbone.positions.shape[1] - given.shape[1]
    dtype = choose_precision(given.device, settings.precision)
    painted: list[Tensor] = []
    with products_in(dtype, given.device), progress("painting", new * len(parts), unit="pixel") as advance:
        for part in parts:
            before = new * len(painted)
            painted.append(learner.paint(part, choose, lambda done, before=before: advance(before + done)))  # type: ignore[misc]
    return torch.cat(painted)


def as_images(learner: NextPixel, numbers: Tensor) -> list[Image]:
    """Colours ``(B, N)`` as images ``(h, w, C)`` uint8."""
    images = learner.preprocess.denormalize(learner.backbone.images(numbers))
    return list(images.permute(0, 2, 3, 1).cpu().numpy())


def write_sheet(rows: Sequence[Sequence[Image]], out: Path) -> None:
    """A PNG of all images on white, each pixel of which is a square."""
    height, width = rows[0][0].shape[:2]
    scale = math.ceil(TILE / min(height, width))
    down, across = scale * height + GAP, scale * width + GAP
    sheet = np.full((down * len(rows) + GAP, across * max(map(len, rows)) + GAP, 3), 255, dtype=np.uint8)
    for r, row in enumerate(rows):
        for c, image in enumerate(row):
            top, left = GAP + r * down, GAP + c * across
            sheet[top : top + down - GAP, left : left + across - GAP] = image.repeat(scale, axis=0).repeat(
                scale, axis=1
            )
    atomic.write(out, lambda path: PIL.Image.fromarray(sheet).save(path, format="PNG"))
