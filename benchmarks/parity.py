"""How far our logits are from those of the libraries that weights come from, family by family.

Networks of timm, torchvision, Transformers and the papers' own code are written by their interpreter, with the logits
that they give for random and for real images, and opened by ours. Clones of papers' code are found through
`VITRAIL_REPOSITORIES`, photographs through `VITRAIL_DATA`.

    python benchmarks/parity.py --peers PEERS/bin/python [FAMILY ...]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file

from vitrail.weights.load import load

ROOT = Path(__file__).parent.parent
PEERS = ROOT / "tests" / "parity" / "peers"
FAMILIES = sorted(path.stem for path in PEERS.glob("*.py") if path.stem not in ("case", "make"))


@torch.no_grad()
def differences(family: str, peers: str) -> Iterator[tuple[str, float, float]]:
    """Each case of a family: its name, the largest difference of a logit, and the largest logit."""
    with tempfile.TemporaryDirectory() as out:
        subprocess.run([peers, PEERS / "make.py", family, out], check=True, stdout=sys.stderr)
        for folder in sorted(Path(out).iterdir(), key=lambda path: int(path.name)):
            case = json.loads((folder / "case.json").read_text())
            file = next(folder.glob("weights.*"), folder)
            task = load(file, layout=case["layout"], model=case["model"], config=case["changes"], **case["loaded_with"])
            expected = load_file(folder / "expected" / "logits.safetensors")
            difference = (task(expected["images"]) - expected["logits"]).abs().max()
            yield case["case"], difference.item(), expected["logits"].abs().max().item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("families", nargs="*", metavar="FAMILY", help="which ones; left out: all")
    parser.add_argument("--peers", required=True, help="an interpreter with timm, torchvision and Transformers")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "parity.md", help="the table")
    settings = parser.parse_args()
    torch.set_num_threads(1)
    lines = ["| family | network | largest difference | largest logit |", "|---|---|---|---|"]
    print(*lines, sep="\n")
    for family in settings.families or FAMILIES:
        for case, difference, largest in differences(family, settings.peers):
            lines.append(f"| {family} | {case} | {difference:.1e} | {largest:.2g} |")
            print(lines[-1], flush=True)
    settings.out.parent.mkdir(parents=True, exist_ok=True)
    settings.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
