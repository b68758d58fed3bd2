"""Why did transformers take so long? A ViT and a ResNet of equal cost, trained on more and more of a person's own data.

Dosovitskiy et al. (2021, figures 3 and 4) compare ViT with BiT, a ResNet with group norms and standardised weights, as
the pre-training data grow: on little data the ResNet is ahead, since it need not learn that pixels have neighbours.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from vitrail import atomic
from vitrail.console import say
from vitrail.data.dataset import open_dataset
from vitrail.data.source import Dataset, Subset
from vitrail.data.split import keep_share
from vitrail.errors import SettingError
from vitrail.metrics import draw
from vitrail.metrics.power_law import PowerLaw, fit, meet
from vitrail.recipes import run
from vitrail.recipes.costs import forward_flops
from vitrail.recipes.studying.settings import Study
from vitrail.recipes.training.choose import best_batch_size, typical_side
from vitrail.recipes.training.settings import Train
from vitrail.recipes.training.train import train

SMALL_IMAGES = 64  # pixels up to which images are shown at this size, else at twice or more of it
SEEN, FEWEST, MOST = 80_000, 5, 100  # images that a run sees in all, and the epochs that this may take
BATCH_SIZE = 64
PICTURE = "study.png"
NEARLY, FARTHEST = 0.05, 100.0  # by how much two costs may differ; how far beyond the data the curves are followed


class Shape(NamedTuple):
    """A ResNet, the ViT that is to cost as much, and the image size where small images do not decide it.

    The ViT has ``depth`` blocks, heads of ``head`` features and ``grid`` patches on each side of an image; its width
    and the units of its MLPs are found.
    """

    resnet: dict[str, Any]
    depth: int
    head: int
    grid: int
    image_size: int


SHAPES = {
    "small": Shape({"depths": (2, 2, 2), "width": 16, "groups": 8}, depth=6, head=16, grid=8, image_size=128),
    "large": Shape({}, depth=12, head=64, grid=14, image_size=224),  # BiT-R50x1, beside about a ViT-S/16
}


class Network(NamedTuple):
    """What is trained: a model with the changes to its config, and what it costs for one image."""

    model: str
    changes: dict[str, Any]
    flops: int

    def words(self) -> tuple[str, ...]:
        """The changes as `--config` takes them."""
        listed = {name: value if isinstance(value, tuple) else (value,) for name, value in self.changes.items()}
        return tuple(f"{name}={','.join(map(str, values))}" for name, values in listed.items())


class Plan(NamedTuple):
    """What all runs share: the networks by name, how they are trained, and how many images each share has."""

    networks: dict[str, Network]
    image_size: int
    epochs: int
    batch_size: int
    images: dict[float, int]
    score: str


class Point(NamedTuple):
    """One run: what was trained on how many images, and the score (accuracy, or mean average precision) on others."""

    network: str
    share: float
    images: int
    seed: int
    score: float
    run: str


def data_scaling(settings: Study) -> dict[str, Any]:
    """Train both networks on every share with every seed; fit and draw how their errors fall."""
    plan = planned(settings, opened(settings))
    for name, network in plan.networks.items():
        say(f"{name}: {network.model} with {' '.join(network.words())}, {network.flops / 1e6:,.1f} MFLOPs an image")
    todo = [(seed, share, name) for seed in settings.seeds for share in plan.images for name in plan.networks]
    points: list[Point] = []
    answer: dict[str, Any] = {}
    spent: list[float] = []
    for number, (seed, share, name) in enumerate(todo, 1):
        images = plan.images[share]
        say(f"study: run {number} of {len(todo)}: {name} on {images:,} images, seed {seed}{left(spent, todo)}")
        began = time.perf_counter()
        one = run_settings(settings, plan, name, share, seed)
        figures, trained = finished(one)
        spent.append(time.perf_counter() - began)
        score = figures["top1"] if "top1" in figures else figures["map"]
        points.append(Point(name, share, images, seed, score, Path(str(one.out)).name))
        if trained or number == len(todo):
            answer = written(settings, plan, points)
    if not settings.json:
        Console().print(as_table(points, plan.score))
        say(in_words(answer))
    say(f"the study is in {settings.out}, its picture is {Path(str(settings.out), PICTURE)}")
    return answer


def written(settings: Study, plan: Plan, points: Sequence[Point]) -> dict[str, Any]:
    """What is known after some runs, written as `study.json` and drawn."""
    assert settings.out is not None
    answer = conclusion(settings, plan, points)
    atomic.write_text(settings.out / "study.json", json.dumps(answer, indent=2, ensure_ascii=False) + "\n")
    draw.save(draw.scaling(curves(points), laws(points), plan.score), settings.out / PICTURE)
    return answer


def planned(settings: Study, dataset: Dataset) -> Plan:
    """What was left open, chosen for the data. Raises :class:`SettingError` for an image size that will not do."""
    size = image_size(settings, dataset)
    count = len(dataset.splits["train"])
    return Plan(
        networks=equal_networks(settings.size, size, dataset.channels),
        image_size=size,
        epochs=settings.epochs or min(MOST, max(FEWEST, round(SEEN / count))),
        batch_size=settings.batch_size or min(BATCH_SIZE, best_batch_size(count)),
        images={share: images_in(dataset, share, settings.seeds[0]) for share in sorted(settings.shares)},
        score="mean average precision" if dataset.many_labels else "accuracy",
    )


def opened(settings: Study) -> Dataset:
    """The data; those of an earlier part of the same study or :class:`RunError`."""
    assert settings.data is not None
    assert settings.out is not None
    dataset = open_dataset(
        settings.data,
        settings.format,
        seed=settings.seeds[0],
        image_column=settings.image_column,
        label_column=settings.label_column,
    )
    run.note_or_refuse(dataset, settings.out, "restore them, or start a new study")
    return dataset


def image_size(settings: Study, dataset: Dataset) -> int:
    """The side that was asked for; else 64 pixels for small images, for others that of the networks."""
    shape = SHAPES[settings.size]
    if settings.image_size is None:
        small = settings.size == "small" and typical_side(dataset.splits["train"]) <= SMALL_IMAGES
        return SMALL_IMAGES if small else shape.image_size
    if settings.image_size % shape.grid:
        raise SettingError(
            f"--image-size must be a multiple of {shape.grid}, the ViT's patches on a side, not {settings.image_size}."
        )
    return settings.image_size


def images_in(dataset: Dataset, share: float, seed: int) -> int:
    """How many different training images a share has."""
    source = keep_share(dataset, share, seed).splits["train"]
    return len(set(source.indices)) if share < 1 and isinstance(source, Subset) else len(source)


@cache
def equal_networks(size: str, image_size: int, channels: int) -> dict[str, Network]:
    """A ResNet, and a plain ViT whose forward pass costs the same to within 5 %.

    Of the widths that can cost as much with MLPs of 1 to 8 times that width, the one with a ratio nearest to 4, which
    is the paper's. Raises :class:`SettingError` where there is none.
    """
    shape = SHAPES[size]
    images = {"image_size": (image_size, image_size), "channels": channels}
    goal = forward_flops("bit-r50x1", **shape.resnet, **images)

    def vit(heads: int, mlp: int) -> dict[str, Any]:
        shared = {"depth": shape.depth, "patch_size": image_size // shape.grid}
        return {"width": heads * shape.head, "heads": heads, "mlp": mlp, **shared}

    def cost(heads: int, mlp: int) -> int:
        return forward_flops("vit-s16", **vit(heads, mlp), **images)

    found = []
    for heads in range(1, 65):
        width, least = heads * shape.head, cost(heads, 8)
        if least >= goal:
            break
        mlp = 8 + 8 * round((goal - least) / (cost(heads, 16) - least))
        if width <= mlp <= 8 * width:
            found.append((abs(mlp / width - 4), heads, mlp))
    if found:
        _, heads, mlp = min(found)
        flops = cost(heads, mlp)
        if abs(flops / goal - 1) <= NEARLY:
            return {
                "ViT": Network("vit-s16", vit(heads, mlp), flops),
                "BiT-ResNet": Network("bit-r50x1", shape.resnet, goal),
            }
    raise SettingError(f"no ViT costs as much as the ResNet at {image_size} pixels; give a larger --image-size.")


def run_settings(settings: Study, plan: Plan, name: str, share: float, seed: int) -> Train:
    """One run: both networks are trained in the same way, for the same number of steps whatever the share."""
    assert settings.out is not None
    network = plan.networks[name]
    return Train(
        data=settings.data,
        out=settings.out / f"{name}-{share:g}-{seed}",
        model=network.model,
        config=network.words(),
        weights="none",
        image_size=plan.image_size,
        epochs=plan.epochs,
        batch_size=plan.batch_size,
        learning_rate=settings.learning_rate,
        share=share,
        seed=seed,
        format=settings.format,
        image_column=settings.image_column,
        label_column=settings.label_column,
        workers=settings.workers,
        device=settings.device,
        precision=settings.precision,
    )


def finished(settings: Train) -> tuple[dict[str, Any], bool]:
    """The figures of a run, those it has or after going on with it or after all of it; and whether it was trained."""
    assert settings.out is not None
    figures = settings.out / "evaluation.json"
    if figures.is_file():
        return json.loads(figures.read_text(encoding="utf-8")), False
    if (settings.out / run.RECORD).is_file():
        return train(Train(resume=settings.out, workers=settings.workers, device=settings.device)), True
    return train(settings), True


def left(spent: Sequence[float], todo: Sequence[Any]) -> str:
    """About how long the runs that are left will take, after some that took so many seconds; in words, or nothing."""
    trained = [seconds for seconds in spent if seconds > 1]  # the others were there already
    if not trained:
        return ""
    return f"; about {mean(trained) * (len(todo) - len(spent)) / 60:.0f} min left"


def curves(points: Sequence[Point]) -> dict[str, tuple[list[int], list[float]]]:
    """For each network the numbers of images and the scores of its runs."""
    names = dict.fromkeys(point.network for point in points)
    return {
        name: ([p.images for p in points if p.network == name], [p.score for p in points if p.network == name])
        for name in names
    }


def laws(points: Sequence[Point]) -> dict[str, PowerLaw | None]:
    """For each network the power law that its error follows; None where too few shares were trained on."""
    return {name: fit(n, [1 - score for score in scores]) for name, (n, scores) in curves(points).items()}


def conclusion(settings: Study, plan: Plan, points: Sequence[Point]) -> dict[str, Any]:
    """What `study.json` says: the networks, every run, the fitted laws, and the number of images where they meet.

    The laws are followed to a hundred times the data; ``meet`` is None if they do not meet there.
    """
    fitted = laws(points)
    most = max(point.images for point in points)
    both = [law for law in fitted.values() if law is not None]
    crossing = meet(both[0], both[1], min(p.images for p in points), FARTHEST * most) if len(both) == 2 else None
    return {
        "study": "data-scaling",
        "data": settings.data,
        "score": plan.score,
        "image_size": plan.image_size,
        "epochs": plan.epochs,
        "batch_size": plan.batch_size,
        "networks": {name: network._asdict() for name, network in plan.networks.items()},
        "points": [point._asdict() for point in points],
        "laws": {name: None if law is None else asdict(law) for name, law in fitted.items()},
        "meet": None if crossing is None else round(crossing),
        "images": most,
    }


def as_table(points: Sequence[Point], score: str) -> Table:
    """The mean score of each network on each share, and how far the seeds are from it."""
    networks = list(curves(points))
    table = Table("images", box=None, header_style="bold", pad_edge=False, caption=f"{score}, mean of the seeds")
    for name in networks:
        table.add_column(name, justify="right")
    for images in sorted({point.images for point in points}):
        of_size = [[p.score for p in points if (p.images, p.network) == (images, name)] for name in networks]
        table.add_row(f"{images:,}", *(_mean_and_spread(scores) for scores in of_size))
    return table


def _mean_and_spread(scores: Sequence[float]) -> str:
    spread = f" ± {(max(scores) - min(scores)) / 2:.2%}" if len(scores) > 1 else ""
    return f"{mean(scores):.2%}{spread}" if scores else ""


def in_words(answer: dict[str, Any]) -> str:
    """The fitted laws, and where they meet."""
    lines = [f"{name}: error = {PowerLaw(**law)} of n images" for name, law in answer["laws"].items() if law]
    if len(lines) == 2 and answer["meet"] is None:
        lines.append(f"The fitted curves do not meet up to {FARTHEST * answer['images']:,.0f} images.")
    elif len(lines) == 2:
        beyond = ", far beyond the data" if answer["meet"] > 2 * answer["images"] else ""
        lines.append(f"The fitted curves meet at about {answer['meet']:,} images{beyond}.")
    return "\n".join(lines or ["too few shares for a law: three are needed."])
