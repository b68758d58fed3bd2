"""Token merging: images a second, and what it costs a trained run in accuracy, over the pairs merged in each block.

All in one process: the same batch goes through with every number of pairs in turn, round after round, so that a slow
moment of the machine touches them all; told are medians. Published shapes have random weights, whose speed is the same
as that of trained ones. Accuracy is that of `vitrail evaluate --merge`.

    python benchmarks/merging.py                                 ViT-S/16 and ViT-B/16 at 224 pixels
    python benchmarks/merging.py --run runs/cifar --data cifar/ --pairs 0 4 8 16 24    and a trained run
    python benchmarks/merging.py --models vit-l16 --batch-size 32 --device cuda --out merging.md
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch

from vitrail.allocator import keep_freed_memory
from vitrail.bench.machine import in_words, machine
from vitrail.bench.timing import in_turns
from vitrail.console import say
from vitrail.nn.inference import ready
from vitrail.recipes.benching.model import opened, random_batch
from vitrail.recipes.evaluating.evaluate import evaluate
from vitrail.recipes.evaluating.settings import Evaluate
from vitrail.recipes.opened import open_task
from vitrail.recipes.settings import UNSTATED
from vitrail.tasks import Classification
from vitrail.train.precision import choose_device, choose_precision, products_in

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Row:
    """A model with so many pairs of tokens merged in each block.

    Attributes:
        tokens: before the first block and behind the last, class token and registers included.
        images_per_second: the median over the rounds; speed_up: that of the ratios to no merging in the same round.
        accuracy: of a trained run on held-out images, in percent; lost: points less than without merging.
    """

    model: str
    pairs: int
    tokens: tuple[int, int]
    images_per_second: float
    speed_up: float
    accuracy: float | None = None
    lost: float | None = None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="*", default=["vit-s16", "vit-b16"], help="published shapes")
    parser.add_argument("--pairs", type=int, nargs="+", default=[0, 4, 8, 13, 16])
    parser.add_argument("--run", default=None, help="a trained run, whose accuracy is measured, too")
    parser.add_argument("--data", default=None, help="the images to measure it on")
    parser.add_argument("--split", default="auto")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--precision", default="auto", choices=["auto", "float32", "bfloat16"])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "merging.md", help="and .json")
    settings = parser.parse_args()
    if (settings.run is None) != (settings.data is None):
        parser.error("--run and --data belong together")
    settings.pairs = sorted({0, *settings.pairs})
    keep_freed_memory()  # as every command does
    rows: list[Row] = []
    for name in settings.models:
        torch.manual_seed(0)
        task = opened(name, None)
        assert isinstance(task, Classification)
        rows += told(timed(task.eval(), settings))
    if settings.run is not None:
        rows += told(measured(settings))
    write(settings, rows)


def measured(settings: argparse.Namespace) -> list[Row]:
    """Speed and accuracy of the trained run."""
    rows, found = timed(open_task(settings.run, UNSTATED), settings), []
    for row in rows:
        say(f"measuring {settings.run} with {row.pairs} pairs a block")
        figures = evaluate(
            Evaluate(settings.run, settings.data, merge=row.pairs, split=settings.split, device=settings.device,
                     precision=settings.precision, json=True)
        )  # fmt: skip
        accuracy = 100 * figures["top1" if "top1" in figures else "map"]
        whole = found[0].accuracy if found else accuracy
        found.append(Row(**asdict(row) | {"accuracy": round(accuracy, 2), "lost": round(whole - accuracy, 2)}))
    return found


def timed(task: Classification, settings: argparse.Namespace) -> list[Row]:
    """Images a second of the model with each number of pairs, in turn."""
    device = choose_device(settings.device)
    dtype = choose_precision(device, settings.precision)
    images = random_batch(task, settings.batch_size).images.to(device)
    task = ready(task.to(device), dtype)
    with torch.inference_mode(), products_in(dtype, device):
        tokens = {pairs: tokens_of(task, images[:1], pairs) for pairs in settings.pairs}
        works = {str(pairs): partial(merged, task, images, pairs) for pairs in settings.pairs}
        seconds = in_turns(works, 0, device, least=settings.rounds)
    rows = []
    for pairs in settings.pairs:
        of_pairs = seconds[str(pairs)]
        speed_up = statistics.median(whole / took for whole, took in zip(seconds["0"], of_pairs, strict=True))
        speed = settings.batch_size / statistics.median(of_pairs)
        rows.append(Row(task.model, pairs, tokens[pairs], round(speed, 1), round(speed_up, 3)))
    return rows


def merged(task: Classification, images: torch.Tensor, pairs: int) -> torch.Tensor:
    """The logits with so many pairs merged in each block."""
    task.backbone.merge = pairs
    return task(images)


def tokens_of(task: Classification, images: torch.Tensor, pairs: int) -> tuple[int, int]:
    """How many tokens of an image there are before the first block and behind the last, where vectors differ."""
    task.backbone.merge = pairs
    tokens = task.features(images).tokens[0].float()
    return len(tokens), len(tokens.unique(dim=0))


def told(rows: list[Row]) -> list[Row]:
    for row in rows:
        say(json.dumps(asdict(row)))
    return rows


def write(settings: argparse.Namespace, rows: Sequence[Row]) -> None:
    """The table, and the same as JSON."""
    device = choose_device(settings.device)
    precision = str(choose_precision(device, settings.precision)).removeprefix("torch.")
    found = machine(device)
    about = f"Batches of {settings.batch_size} in {precision} on {device}, medians of {settings.rounds} rounds."
    lines = ["| model | pairs a block | tokens | images/s | speed-up | accuracy | lost |",
             "| --- | --- | --- | --- | --- | --- | --- |"]  # fmt: skip
    for row in rows:
        accuracy = ("", "") if row.accuracy is None else (f"{row.accuracy:.2f} %", f"{row.lost:.2f}")
        tokens = f"{row.tokens[0]} to {row.tokens[1]}"
        cells = (row.model, row.pairs, tokens, f"{row.images_per_second:,.1f}", f"{row.speed_up:.2f}", *accuracy)
        lines.append("| " + " | ".join(str(cell) for cell in cells) + " |")
    settings.out.parent.mkdir(parents=True, exist_ok=True)
    settings.out.write_text(f"{about} {in_words(found)}.\n\n" + "\n".join(lines) + "\n")
    record = {
        "batch_size": settings.batch_size,
        "precision": precision,
        "device": str(device),
        "machine": asdict(found),
        "run": settings.run and Path(settings.run).name,
        "rows": [asdict(row) for row in rows],
    }
    settings.out.with_suffix(".json").write_text(json.dumps(record, indent=2) + "\n")
    print(settings.out.read_text())


if __name__ == "__main__":
    main()
