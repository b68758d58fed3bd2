"""What an export cost: logits, labels, accuracy, size and time, before and after."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from statistics import median
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.table import Table
from torch import Tensor

from vitrail.data.loader import channels_first
from vitrail.data.preprocess import Preprocess
from vitrail.data.shapes import Shapes

TOLERANCE = 1e-3  # of a logit in float32; where the largest logit is above 1, of that share of it
AGREEMENT = 0.95  # of labels, for weights of 8 bits
BATCHES = (1, 32)  # whose times are taken
SECONDS, RUNS = 4.0, (3, 20)  # a time is the median of so many runs: until the seconds are over, at least and at most
SCENES = 64  # drawn where a person names no data

Model = Callable[[Tensor], Tensor]
Logits = NDArray[np.float32]


def compare(
    before: NDArray[np.float32], after: NDArray[np.float32], *, many_labels: bool, int8: bool
) -> dict[str, Any]:
    """How far logits ``(n, K)`` of the exported model are from the original's, and whether that ``passed``.

    With many labels the agreement is that of all yes and no, at probability 0.5.
    """
    same = (before >= 0) == (after >= 0) if many_labels else before.argmax(axis=1) == after.argmax(axis=1)
    largest, difference = float(np.abs(before).max()), float(np.abs(before - after).max())
    tolerance = TOLERANCE * max(1.0, largest)
    agreement = float(same.mean())
    return {
        "passed": agreement >= AGREEMENT if int8 else difference <= tolerance,
        "max_difference": difference,
        "tolerance": None if int8 else tolerance,
        "largest_logit": largest,
        "agreement": agreement,
        "least_agreement": AGREEMENT if int8 else None,
    }


def pictures(preprocess: Preprocess) -> tuple[str, Tensor]:
    """Images ``(n, C, H, W)`` uint8 for want of data, and what they are.

    Drawn scenes of coloured shapes; random pixels for a model of other channels than grey or colours.
    """
    if preprocess.channels in (1, 3):
        scenes = Shapes(SCENES, size=128)
        views = [preprocess.view(scenes.sample(number).image)[0] for number in range(SCENES)]
        return f"{SCENES} drawn scenes", channels_first(torch.from_numpy(np.stack(views)))
    return f"{SCENES} images of random pixels", random_images(preprocess, SCENES)


def random_images(preprocess: Preprocess, count: int) -> Tensor:
    """``(count, C, H, W)`` uint8, the same every time."""
    generator = torch.Generator().manual_seed(0)
    shape = (count, preprocess.channels, *preprocess.size)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


@torch.inference_mode()
def logits_of(model: Model, images: Tensor) -> Logits:
    """``(n, K)``, a few images at a time."""
    return np.concatenate([model(part).float().cpu().numpy() for part in images.split(BATCHES[-1])])


def times(models: Mapping[str, Model], preprocess: Preprocess) -> dict[str, dict[str, float]]:
    """Milliseconds an image by the size of the batch, of each model by its name."""
    return {str(size): milliseconds(models, random_images(preprocess, size)) for size in BATCHES}


@torch.inference_mode()
def milliseconds(models: Mapping[str, Model], images: Tensor) -> dict[str, float]:
    """What an image takes in a batch of these, the median of several runs after one that does not count.

    The models take turns, so that what else the machine does slows them all alike.
    """
    seconds: dict[str, list[float]] = {name: [] for name in models}
    for number in range(-1, RUNS[1]):
        for name, model in models.items():
            began = time.perf_counter()
            model(images)
            if number >= 0:
                seconds[name].append(time.perf_counter() - began)
        if number + 1 >= RUNS[0] and sum(map(sum, seconds.values())) > SECONDS:
            break
    return {name: round(1000 * median(each) / len(images), 3) for name, each in seconds.items()}


def as_table(report: Mapping[str, Any]) -> Table:
    """A report (`recipes.exporting.file.report`) for people."""
    table = Table("", "before", "after", box=None, header_style="bold", pad_edge=False)
    table.add_row("largest difference of a logit", "", f"{report['max_difference']:.2g}")
    table.add_row("agreement of labels", "", f"{report['agreement']:.2%}")
    for name, score in (report["scores"] or {}).items():
        table.add_row(name, *(f"{score[when]:.2%}" for when in ("before", "after")))
    table.add_row("megabytes", *(f"{report['bytes'][when] / 1e6:.2f}" for when in ("before", "after")))
    for size, each in report["milliseconds"].items():
        table.add_row(f"ms an image, batch of {size}", *(f"{each[when]:.3g}" for when in ("before", "after")))
    return table
