"""How much of an image should a masked autoencoder not see? One network for each share, on a person's own images.

He et al. (2022, figure 5) find that the features are best where about three quarters of an image are hidden, far more
than the 15 % of words that BERT hides: of pictures less would be guessed from what is near.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from vitrail import atomic
from vitrail.console import say
from vitrail.data.source import Dataset
from vitrail.data.unlabelled import open_images
from vitrail.metrics import draw
from vitrail.recipes import run
from vitrail.recipes.evaluating.probe import probe
from vitrail.recipes.evaluating.settings import Evaluate
from vitrail.recipes.pretraining.pretrain import pretrain
from vitrail.recipes.pretraining.settings import Pretrain
from vitrail.recipes.studying.scaling import FEWEST, MOST, SEEN, left
from vitrail.recipes.studying.settings import Study
from vitrail.recipes.training.choose import typical_side

RATIOS = (0.25, 0.5, 0.75, 0.9)


class Point(NamedTuple):
    """One run: the share of patches that was hidden, the error on them, and the accuracy of a linear probe.

    ``error`` is the mean square over normalised pixels of test images; ``probe`` is None where there are no classes.
    """

    ratio: float
    seed: int
    error: float
    probe: float | None
    run: str


def masking(settings: Study) -> dict[str, Any]:
    """Train an MAE for every share of hidden patches and every seed; draw what it paints and what it has learned."""
    assert settings.out is not None
    dataset = opened(settings, settings.seeds[0])
    epochs = settings.epochs or min(MOST, max(FEWEST, round(SEEN / len(dataset.splits["train"]))))
    labelled = len(dataset.classes) > 1 and not dataset.many_labels
    todo = [(seed, ratio) for seed in settings.seeds for ratio in RATIOS]
    points: list[Point] = []
    answer: dict[str, Any] = {}
    spent: list[float] = []
    for number, (seed, ratio) in enumerate(todo, 1):
        folder = settings.out / f"{ratio:g}-{seed}"
        say(f"study: run {number} of {len(todo)}: {100 * ratio:.0f} % hidden, seed {seed}{left(spent, todo)}")
        began = time.perf_counter()
        learned = finished(folder, run_settings(settings, dataset, folder, epochs, ratio, seed))
        top1 = probed(folder, settings) if labelled else None
        spent.append(time.perf_counter() - began)
        points.append(Point(ratio, seed, learned["loss"], top1, folder.name))
        answer = conclusion(settings, epochs, points)
        atomic.write_text(settings.out / "study.json", json.dumps(answer, indent=2, ensure_ascii=False) + "\n")
    picture = settings.out / "masking.png"
    draw.save(draw.masking([(p.ratio, p.error, p.probe) for p in points]), picture)
    if not settings.json:
        Console().print(as_table(points))
        say(in_words(points))
    say(f"the study is in {settings.out}, its picture is {picture}")
    return answer


def opened(settings: Study, seed: int) -> Dataset:
    """The images, labelled or not; those of an earlier part of the same study or :class:`RunError`."""
    assert settings.data is not None
    assert settings.out is not None
    dataset = open_images(settings.data, settings.format, seed=seed, image_column=settings.image_column)
    run.note_or_refuse(dataset, settings.out, "restore them, or start a new study")
    return dataset


def run_settings(settings: Study, dataset: Dataset, folder: Path, epochs: int, ratio: float, seed: int) -> Pretrain:
    """One run; it learns pixels as they are, so that its error is one of pixels.

    Small: 8x8 patches, whatever the image size, and a million weights; large: ViT-S/16.
    """
    side = settings.image_size or next((n for n in (16, 32, 64) if typical_side(dataset.splits["train"]) <= n), 128)
    small: dict[str, Any] = {"model": "vit-micro", "config": ("depth=4", "mlp=512", f"patch_size={side // 8}")}
    shape = small | {"image_size": side // 8 * 8} if settings.size == "small" else {"model": "vit-s16"}
    return Pretrain(
        settings.data,
        "mae",
        folder,
        **shape,
        options=(f"mask_ratio={ratio}", "normalise_patches=false"),
        epochs=epochs,
        batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        seed=seed,
        format=settings.format,
        image_column=settings.image_column,
        workers=settings.workers,
        device=settings.device,
        precision=settings.precision,
    )


def finished(folder: Path, settings: Pretrain) -> dict[str, Any]:
    """The figures of a run: those it has, or after going on with it, or after all of it."""
    if (folder / run.RECORD).is_file():
        going_on = Pretrain(resume=folder, workers=settings.workers, device=settings.device)
        return _kept(folder / "evaluation.json", lambda: pretrain(going_on))
    return pretrain(settings)


def probed(folder: Path, settings: Study) -> float:
    """The accuracy of a linear probe of a run on the study's data."""
    assert settings.data is not None
    asked = Evaluate(
        str(folder),
        settings.data,
        probe="linear",
        format=settings.format,
        image_column=settings.image_column,
        label_column=settings.label_column,
        out=folder,
        workers=settings.workers,
        device=settings.device,
        precision=settings.precision,
        json=True,
    )
    return float(_kept(folder / "probe.json", lambda: probe(asked))["top1"])


def _kept(file: Path, otherwise: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What a file of figures holds, if it is there; else what is then measured."""
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else otherwise()


def conclusion(settings: Study, epochs: int, points: Sequence[Point]) -> dict[str, Any]:
    """What `study.json` says: every run."""
    runs = [point._asdict() for point in points]
    return {"study": "masking", "data": settings.data, "epochs": epochs, "points": runs}


def as_table(points: Sequence[Point]) -> Table:
    """The mean error and accuracy for each share."""
    table = Table("hidden", box=None, header_style="bold", pad_edge=False, caption="mean of the seeds")
    table.add_column("error of hidden pixels", justify="right")
    table.add_column("linear probe", justify="right")
    for ratio, error, accuracy in means(points):
        table.add_row(f"{100 * ratio:.0f} %", f"{error:.4f}", "" if accuracy is None else f"{accuracy:.2%}")
    return table


def means(points: Sequence[Point]) -> list[tuple[float, float, float | None]]:
    """Share, mean error and mean accuracy over the seeds."""
    rows = []
    for ratio in dict.fromkeys(point.ratio for point in points):
        here = [point for point in points if point.ratio == ratio]
        known = [point.probe for point in here if point.probe is not None]
        rows.append((ratio, mean(point.error for point in here), mean(known) if known else None))
    return rows


def in_words(points: Sequence[Point]) -> str:
    """Which share gave the best features."""
    probes = [(accuracy, ratio) for ratio, _, accuracy in means(points) if accuracy is not None]
    if not probes:
        return "these images have no classes to probe the features with; the error alone says little of them."
    accuracy, ratio = max(probes)
    return f"the best features, {accuracy:.2%} in a linear probe, come of hiding {100 * ratio:.0f} %."
