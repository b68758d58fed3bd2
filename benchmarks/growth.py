"""How cost grows: time and memory over the batch, the image's size and the model's width, for ViTs on this machine.

    python benchmarks/growth.py                  into benchmarks/results/growth.md and .json, docs/images/growth.png
    python benchmarks/growth.py --only width     measure one of the three anew

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
from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

import vitrail.recipes.benching.bench as recipe
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


def measured(seconds: float, wanted: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """What grew, and what `vitrail bench` says of each step, in both modes."""
    for what in wanted:
        for model, batch, size, mode in GROWTHS[what]:
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
        label(axes[:, column], what, {place(what, row): tick(what, row) for row in rows})
    axes[0, 0].set_ylabel("images a second")
    axes[1, 0].set_ylabel("peak memory, MB")
    axes[0, 0].legend(frameon=False)
    return figure


def tick(what: str, row: dict[str, Any]) -> str:
    """What stands below a figure."""
    named = row["model"].removeprefix("vit-").removesuffix("16").capitalize()
    return named if what == "width" else f"{place(what, row):.0f}"


def label(axes: Any, what: str, ticks: dict[float, str]) -> None:
    """Logarithmic axes, on which a straight line is a power, with the steps themselves as ticks."""
    titles = {"batch": "images in a batch (ViT-S/16)", "image": "pixels of a side (ViT-S/16, 1 image)"}
    each: Axes
    for each in axes:
        each.set_xscale("log")
        each.set_yscale("log")
        each.grid(alpha=0.3)
        each.set_xticks(list(ticks), list(ticks.values()))
        each.xaxis.set_minor_locator(NullLocator())
        each.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        each.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        each.yaxis.set_minor_locator(NullLocator())
        low, high = each.get_ylim()
        each.set_ylim(low / 1.2, high * 1.2)
    axes[1].set_xlabel(titles.get(what, "ViT of patches of 16 pixels (4 images)"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=2.0, help="for each figure; slow ones are repeated five times")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "growth.md")
    parser.add_argument("--picture", type=Path, default=ROOT / "docs" / "images" / "growth.png")
    parser.add_argument("--only", nargs="*", choices=list(GROWTHS), default=list(GROWTHS))
    settings = parser.parse_args()
    before = settings.out.with_suffix(".json")
    found: dict[str, list[dict[str, Any]]] = json.loads(before.read_text()) if before.is_file() else {}
    found = {what: [] if what in settings.only else found.get(what, []) for what in GROWTHS}
    for what, row in measured(settings.seconds, settings.only):
        found[what].append(row)
        write(found, settings.out, settings.seconds)  # as far as it is
    draw.save(drawn(found), settings.picture)


def write(found: dict[str, list[dict[str, Any]]], path: Path, seconds: float) -> None:
    """The tables, and all figures as JSON."""
    first = next(row for rows in found.values() for row in rows)
    words = in_words(Machine(**first["machine"]))
    head = ["# How cost grows", "", f"{time.strftime('%Y-%m-%d')}; {words}; {first['precision']}.", ""]
    sections = [line for what, rows in found.items() if rows for line in table(what, rows)]
    path.write_text("\n".join([*head, f"`python benchmarks/growth.py --seconds {seconds:g}`", "", *sections]))
    path.with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
