"""Vitrail beside timm and Transformers: images a second and memory, in inference and training, on this machine.

Each way of computing has a process of its own, all of them stay ready, and they take turns, so that the machine's moods
meet all alike. Ours is what `vitrail evaluate` and `vitrail train` do without a flag. Beside the times stands what the
machine could do at most: its rate of matrix products at the model's own shapes, measured in the same run.

    python benchmarks/speed.py --peers PEERS/bin/python          all of it, into benchmarks/results/speed.md and .json
    python benchmarks/speed.py --peers … --only inference:vit-b16 --rounds 3

PEERS is an environment with timm and Transformers, and need not have Vitrail; without it only ours are measured.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vitrail.bench.machine import in_words, machine
from vitrail.bench.peak import rate_of
from vitrail.recipes.benching.model import Case, Mode, cost_of
from vitrail.train.precision import choose_precision

HERE = Path(__file__).parent
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Race:
    """A model, what is done with it, and the ways of doing it: (library, way)."""

    name: str
    model: str
    batch: int
    training: bool
    ways: tuple[tuple[str, str], ...]
    size: int = 224


OURS = (("vitrail", "auto"), ("vitrail", "float32"))
BY_HAND = (("timm", "float32"), ("timm", "autocast"), ("timm", "bfloat16"))
HUGGING_FACE = (("transformers", "float32"), ("transformers", "bfloat16"))
CONVOLUTIONS = (
    *OURS,
    ("timm", "float32"),
    ("timm", "autocast"),
    ("timm", "bfloat16, channels last"),
)
RACES = (
    Race("inference:vit-b16", "vit-b16", 8, False, (*OURS, *BY_HAND, ("timm", "bfloat16, compiled"), *HUGGING_FACE)),
    Race("inference:vit-s16", "vit-s16", 1, False, OURS + BY_HAND),
    Race("inference:swin-t", "swin-t", 8, False, OURS + BY_HAND),
    Race("inference:resnet-50", "resnet-50", 8, False, CONVOLUTIONS),
    Race("training:vit-s16", "vit-s16", 16, True, (*OURS, *BY_HAND, ("timm", "bfloat16, fused"), *HUGGING_FACE[:1])),
    Race("training:resnet-50", "resnet-50", 16, True, CONVOLUTIONS),
)


class Contestant:
    """A process that computes steps when it is asked to."""

    def __init__(self, python: str, race: Race, library: str, way: str, threads: int) -> None:
        self.library, self.way = library, way
        asked = {"library": library, "way": way, "threads": threads, "model": race.model, "batch": race.batch}
        asked |= {"size": race.size, "training": race.training}
        self.process = subprocess.Popen(
            [python, str(HERE / "contestant.py"), json.dumps(asked)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def steps(self, count: int) -> dict[str, Any]:
        """Seconds of each of so many steps, and the most memory so far."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{count}\n")
        self.process.stdin.flush()
        if not (line := self.process.stdout.readline()):
            raise SystemExit(f"{self.library}, {self.way} ended with status {self.process.wait()}")
        return json.loads(line)


@contextmanager
def contestants(python: dict[str, str], race: Race, threads: int) -> Iterator[list[Contestant]]:
    """All ways of a race whose library there is a Python for, warm; they end with the context."""
    started: list[Contestant] = []
    try:
        for library, way in race.ways:
            if library in python:
                started.append(Contestant(python[library], race, library, way, threads))
                started[-1].steps(3)  # one after the other: caches fill, compilers compile
        yield started
    finally:
        for contestant in started:
            contestant.process.kill()
            contestant.process.wait()


def run(race: Race, python: dict[str, str], rounds: int, seconds: float, threads: int) -> dict[str, Any]:
    """The figures of a race: for each way images a second (median and quartiles over rounds) and megabytes."""
    rate, flops = limit(race)
    rows = []
    with contestants(python, race, threads) as ready:
        memory = [contestant.steps(1)["memory"] for contestant in ready]
        speeds: list[list[float]] = [[] for _ in ready]
        for turn in range(rounds):
            order = range(len(ready)) if turn % 2 == 0 else reversed(range(len(ready)))
            for number in order:
                once = ready[number].steps(1)["seconds"][0]
                taken = ready[number].steps(max(1, round(seconds / once)))["seconds"]
                speeds[number].append(race.batch / float(np.median(taken)))
        for contestant, speed, most in zip(ready, speeds, memory, strict=True):
            low, median, high = np.percentile(speed, [25, 50, 75])
            row = {"library": contestant.library, "way": contestant.way, "images_per_second": round(median, 3)}
            row |= {"quartiles": [round(low, 3), round(high, 3)], "megabytes": most and round(most / 1e6)}
            rows.append(row | {"share_of_limit": round(median * flops / rate, 3)})
    return asdict(race) | {"limit_images_per_second": round(rate / flops, 3), "limit_flops": rate, "rows": rows}


def limit(race: Race) -> tuple[float, float]:
    """Operations a second of the model's own matrix products by themselves; and operations an image takes."""
    dtype = choose_precision(CPU)
    mode: Mode = "training" if race.training else "inference"
    cost = cost_of(Case(race.model, mode, race.batch, race.size, CPU, dtype, seconds=0, threads=0))
    assert cost.flops is not None
    return rate_of(cost.products, dtype, CPU, seconds=4.0), cost.flops / race.batch


def table(found: dict[str, Any]) -> Iterator[str]:
    """A race in Markdown."""
    rows = found["rows"]
    ours = rows[0]["images_per_second"]
    what = "training" if found["training"] else "inference"
    yield f"## {what} of {found['model']}, batches of {found['batch']} images of {found['size']} pixels"
    yield ""
    yield "| library | way | images/s | quartiles | ours is faster by | share of the limit | memory, MB | ours takes |"
    yield "|---|---|---|---|---|---|---|---|"
    for row in rows:
        low, high = row["quartiles"]
        memory, speed = row["megabytes"], row["images_per_second"]
        share = f"{rows[0]['megabytes'] / memory:.2f}" if memory else ""
        way = "default" if row["way"] == "auto" else row["way"]
        times = f"{speed:.2f} | {low:.2f} … {high:.2f} | {ours / speed:.2f} | {row['share_of_limit']:.2f}"
        yield f"| {row['library']} | {way} | {times} | {memory or ''} | {share} |"
    yield ""
    yield (
        f"The limit: {found['limit_flops'] / 1e12:.3f} TFLOP/s at this model's shapes, "
        f"{found['limit_images_per_second']:.2f} images/s if there were nothing but matrix products."
    )
    yield ""


def versions(python: dict[str, str]) -> dict[str, str]:
    """What the peers are."""
    if "timm" not in python:
        return {}
    code = "import timm, transformers, torch; print(*(x.__version__ for x in (timm, transformers, torch)))"
    said = subprocess.run([python["timm"], "-c", code], capture_output=True, text=True, check=True).stdout
    return dict(zip(("timm", "transformers", "torch"), said.split(), strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", help="the Python of an environment with timm and Transformers")
    parser.add_argument("--only", nargs="*", default=[], help="races, such as inference:vit-b16; left out: all")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each way in a round")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path, default=HERE / "results" / "speed.md")
    settings = parser.parse_args()
    torch.set_num_threads(settings.threads)
    python = {"vitrail": sys.executable}
    if settings.peers:
        python |= {"timm": settings.peers, "transformers": settings.peers}
    found = machine()
    results: dict[str, Any] = {"date": time.strftime("%Y-%m-%d"), "machine": asdict(found), "peers": versions(python)}
    results["races"] = []
    lines = ["# Speed beside timm and Transformers", "", f"{results['date']}; {in_words(found)}.", ""]
    if results["peers"]:
        lines += [
            "The peers: " + ", ".join(f"{name} {version}" for name, version in results["peers"].items()) + ".",
            "",
        ]
    rounds = f"{settings.rounds} rounds of {settings.seconds:g} s"
    lines += [f"`python benchmarks/speed.py --peers PYTHON`; medians of {rounds}, in turns.", ""]
    for race in RACES:
        if not settings.only or race.name in settings.only:
            results["races"].append(run(race, python, settings.rounds, settings.seconds, settings.threads))
            section = list(table(results["races"][-1]))
            print("\n".join(section), flush=True)
            lines += section
            settings.out.write_text("\n".join(lines))
            settings.out.with_suffix(".json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
