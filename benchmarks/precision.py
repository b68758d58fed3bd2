"""What bfloat16 costs in accuracy: the same training in both formats, each measured in both on real test images.

    python benchmarks/precision.py --mnist DIR --cifar10 DIR --seeds 0 1 2     into benchmarks/results/precision.md
    python benchmarks/precision.py --run RUN DATA --run RUN2 DATA2             models that are trained already

DIR is anything that `vitrail train` takes. Every training starts at the same weights and sees the same batches in both
formats, so that what differs is the rounding, and what grows out of it in training: chance, as another seed is.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from statistics import mean
from typing import Any, Literal

import vitrail
from vitrail.bench.machine import in_words, machine

RESULTS = Path(__file__).parent / "results"
FORMATS: tuple[Literal["float32", "bfloat16"], ...] = ("float32", "bfloat16")
TRAINED: dict[str, dict[str, Any]] = {
    "mnist": {"model": "lenet-5", "epochs": 2, "batch_size": 128},
    "cifar10": {"model": "vit-micro", "epochs": 4, "batch_size": 128},
}


def accuracies(run: str, data: str | None = None) -> dict[str, float]:
    """Top-1 on the test images in percent, by the format of the products."""
    found = {form: vitrail.evaluate(vitrail.Evaluate(run, data, precision=form, json=True)) for form in FORMATS}
    return {form: round(100 * figures["top1"], 3) for form, figures in found.items()}


def trained_in_both(name: str, data: str, seeds: list[int]) -> Iterator[dict[str, Any]]:
    """For each seed and format of training, the accuracy in each format of measuring."""
    for seed in seeds:
        for form in FORMATS:
            with tempfile.TemporaryDirectory() as folder:
                out = Path(folder, "run")
                settings = vitrail.Train(
                    data, out=out, weights="none", precision=form, seed=seed, learning_rate=1e-3, **TRAINED[name]
                )
                vitrail.train(settings)
                yield {"data": name, "seed": seed, "trained": form, "measured": accuracies(str(out))}


def table(rows: list[dict[str, Any]], runs: list[dict[str, Any]]) -> Iterator[str]:
    """The figures in Markdown."""
    if rows:
        yield "| test images | seed | trained in | measured in float32, % | in bfloat16, % | difference |"
        yield "|---|---|---|---|---|---|"
    for row in rows:
        exact, rounded = (row["measured"][form] for form in FORMATS)
        start = f"| {row['data']} | {row['seed']} | {row['trained']}"
        yield f"{start} | {exact:.2f} | {rounded:.2f} | {rounded - exact:+.2f} |"
    yield ""
    for name in dict.fromkeys(row["data"] for row in rows):
        of_name = [row for row in rows if row["data"] == name]
        if {row["trained"] for row in of_name} < set(FORMATS):
            continue
        exact, rounded = (mean(row["measured"][f] for row in of_name if row["trained"] == f) for f in FORMATS)
        yield f"{name}: all in float32 {exact:.2f} %, all in bfloat16 {rounded:.2f} % ({rounded - exact:+.2f}), means."
        yield ""
    if runs:
        yield "| trained before | float32, % | bfloat16, % | difference |"
        yield "|---|---|---|---|"
    for row in runs:
        exact, rounded = (row["measured"][form] for form in FORMATS)
        yield f"| {row['run']} | {exact:.2f} | {rounded:.2f} | {rounded - exact:+.2f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in TRAINED:
        parser.add_argument(f"--{name}", help="where the data are")
    parser.add_argument("--run", nargs=2, action="append", default=[], metavar=("RUN", "DATA"))
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=RESULTS / "precision.md")
    settings = parser.parse_args()
    given = {name: getattr(settings, name) for name in TRAINED if getattr(settings, name)}
    runs = [{"run": Path(run).name, "measured": accuracies(run, data)} for run, data in settings.run]
    rows: list[dict[str, Any]] = []
    write(rows, runs, settings.out)
    for name, data in given.items():
        for row in trained_in_both(name, data, settings.seeds):
            rows.append(row)
            write(rows, runs, settings.out)  # as far as it is


def write(rows: list[dict[str, Any]], runs: list[dict[str, Any]], path: Path) -> None:
    """The tables, and all figures as JSON."""
    found, date = machine(), time.strftime("%Y-%m-%d")
    head = ["# What bfloat16 costs in accuracy", "", f"{date}; {in_words(found)}.", ""]
    path.write_text("\n".join([*head, *table(rows, runs), ""]))
    results = {"date": date, "machine": asdict(found), "trainings": TRAINED, "rows": rows, "runs": runs}
    path.with_suffix(".json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
