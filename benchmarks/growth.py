"""How cost grows: time and memory over the batch, the image's size and the model's width, for ViTs on this machine.

    python benchmarks/growth.py                  into benchmarks/results/growth.md and .json, docs/images/growth.png

Every figure is what `vitrail bench` measures, with random weights and without a flag.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure

import vitrail.recipes.bench as recipe
from vitrail.bench.machine import Machine, in_words
from vitrail.metrics import draw

ROOT = Path(__file__).parent.parent
# What grows, then (model, images in a batch, pixels of a side, what is measured) for each step.
GROWTHS: dict[str, list[tuple[str, int, int, Literal["inference", "both"]]]] = {
    "batch": [("vit-s16", batch, 224, "both") for batch in (1, 4, 16, 64)],
    "image": [("vit-s16", 1, size, "inference") for size in (224, 384, 512, 768, 1024)],
    "width": [(f"vit-{name}16", 4, 224, "both") for name in ("ti", "s", "b", "l")],
}
TITLES = {"batch": "images in a batch", "image": "pixels of a side", "width": "model"}
MODES = ("inference", "training")


def measured(seconds: float) -> Iterator[tuple[str, dict[str, Any]]]:
    """What grew, and what `vitrail bench` says of each step, in both modes."""
    for what, steps in GROWTHS.items():
        for model, batch, size, mode in steps:
            answer = recipe.bench(
                recipe.Bench((model,), mode=mode, batch_size=batch, image_size=size, seconds=seconds, json=True)
            )
            for row in answer["results"]:
                yield what, row | {"machine": answer["machine"], "precision": answer["precision"]}


def table(what: str, rows: list[dict[str, Any]]) -> Iterator[str]:
    """One growth in Markdown."""
    yield f"## {TITLES[what]}"
    yield ""
    yield "| model | batch | pixels | mode | GFLOP an image | images/s | share of the limit | peak memory, MB |"
    yield "|---|---|---|---|---|---|---|---|"
    for row in rows:
        if row["error"]:
            continue
        what_it_is = f"{row['model']} | {row['batch_size']} | {row['image_size'][0]} | {row['mode']}"
        speed, memory = row["images_per_second"]["median"], round((row["peak_memory_bytes"] or 0) / 1e6)
        yield f"| {what_it_is} | {row['flops'] / 1e9:.1f} | {speed:.2f} | {row['share_of_limit']:.2f} | {memory} |"
    yield ""


def place(what: str, row: dict[str, Any]) -> float:
    """Where a figure lies on the axis of what grows."""
    return {"batch": row["batch_size"], "image": row["image_size"][0], "width": row["parameters"] / 1e6}[what]


def drawn(found: dict[str, list[dict[str, Any]]]) -> Figure:
    """Images a second and memory over each growth."""
    figure = Figure(figsize=(11, 5.2), layout="constrained")
    axes = figure.subplots(2, len(found), sharex="col", squeeze=False)
    for column, (what, rows) in enumerate(found.items()):
        for mode in MODES:
            of_mode = [row for row in rows if row["mode"] == mode and not row["error"]]
            places = [place(what, row) for row in of_mode]
            speeds = [row["images_per_second"]["median"] for row in of_mode]
            axes[0, column].plot(places, speeds, marker="o", label=mode)
            axes[1, column].plot(places, [(row["peak_memory_bytes"] or 0) / 1e6 for row in of_mode], marker="o")
            if what == "width" and mode == MODES[0]:
                for x, y, row in zip(places, speeds, of_mode, strict=True):
                    axes[0, column].annotate(row["model"], (x, y), (4, 4), textcoords="offset points", fontsize=8)
        label(axes[:, column], what, [place(what, row) for row in rows])
    axes[0, 0].set_ylabel("images a second")
    axes[1, 0].set_ylabel("peak memory, MB")
    axes[0, 0].legend(frameon=False)
    return figure


def label(axes: Any, what: str, places: list[float]) -> None:
    """Logarithmic axes, on which a straight line is a power, with the steps themselves as ticks."""
    titles = {
        "batch": "ViT-S/16, images in a batch",
        "image": "ViT-S/16, pixels of a side",
        "width": "million parameters",
    }
    each: Axes
    for each in axes:
        each.set_xscale("log")
        each.set_yscale("log")
        each.grid(alpha=0.3)
        each.set_xticks(sorted(set(places)), [f"{value:.3g}" for value in sorted(set(places))])
        each.minorticks_off()
    axes[1].set_xlabel(titles[what])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=2.0, help="for each figure; slow ones are repeated five times")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "growth.md")
    parser.add_argument("--picture", type=Path, default=ROOT / "docs" / "images" / "growth.png")
    settings = parser.parse_args()
    found: dict[str, list[dict[str, Any]]] = {what: [] for what in GROWTHS}
    for what, row in measured(settings.seconds):
        found[what].append(row)
        write(found, settings.out)  # as far as it is
    draw.save(drawn(found), settings.picture)


def write(found: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """The tables, and all figures as JSON."""
    first = found["batch"][0]
    words = in_words(Machine(**first["machine"]))
    head = ["# How cost grows", "", f"{time.strftime('%Y-%m-%d')}; {words}; {first['precision']}.", ""]
    sections = [line for what, rows in found.items() if rows for line in table(what, rows)]
    path.write_text("\n".join([*head, "`python benchmarks/growth.py`", "", *sections]))
    path.with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
