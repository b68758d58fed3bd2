"""How far MAE, iGPT and the models of text are from Transformers' own, and from their authors' programs.

Each case makes a tiny network with random weights, writes it as its library does, opens the files and compares what
both answer. The cases are those of `tests/parity/`; one whose library or clone is not there is left out.

    python benchmarks/parity_pretraining.py [FAMILY ...]
"""

from __future__ import annotations

import argparse
import importlib.util
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parent.parent
TESTS = ROOT / "tests" / "parity"
FAMILIES = ("mae", "igpt", "gpt", "bert", "t5")


def cases(family: str) -> dict[str, Callable[[Path], float]]:
    """From the name of a case to the function that makes it in a folder and returns the largest difference."""
    spec = importlib.util.spec_from_file_location(f"parity_{family}", TESTS / f"test_{family}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: dict[str, Callable[[Path], float]] = module.CASES
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("families", nargs="*", metavar="FAMILY", help="which ones; left out: all")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "parity_pretraining.md")
    settings = parser.parse_args()
    torch.set_num_threads(1)
    lines = ["| family | case | largest difference |", "|---|---|---|"]
    print(*lines, sep="\n")
    for family in settings.families or FAMILIES:
        for name, difference in cases(family).items():
            with tempfile.TemporaryDirectory() as folder:
                try:
                    lines.append(f"| {family} | {name} | {difference(Path(folder)):.1e} |")
                except pytest.skip.Exception:
                    continue
            print(lines[-1], flush=True)
    settings.out.parent.mkdir(parents=True, exist_ok=True)
    settings.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
