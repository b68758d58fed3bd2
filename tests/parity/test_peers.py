"""Networks of timm, torchvision, Transformers and the papers' own code, opened from files as these write them.

Their interpreter is another one: `VITRAIL_PEERS=…/bin/python`, with clones of papers' code in `VITRAIL_REPOSITORIES`.
`benchmarks/parity.py` prints the same as a table.
"""

import json
import os
import subprocess
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from vitrail.weights.load import load

HERE = Path(__file__).parent / "peers"
FAMILIES = sorted(path.stem for path in HERE.glob("*.py") if path.stem not in ("case", "make"))
PEERS = os.environ.get("VITRAIL_PEERS")


@pytest.mark.skipif(not PEERS, reason="VITRAIL_PEERS names no interpreter with timm, torchvision and Transformers")
@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_logits_are_theirs(family, tmp_path):
    done = subprocess.run([PEERS, HERE / "make.py", family, tmp_path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    differences = {}
    for folder in tmp_path.iterdir():
        case = json.loads((folder / "case.json").read_text())
        file = next(folder.glob("weights.*"), folder)
        task = load(file, layout=case["layout"], model=case["model"], config=case["changes"], **case["loaded_with"])
        expected = load_file(folder / "expected" / "logits.safetensors")
        logits = task(expected["images"])
        differences[case["case"]] = (logits - expected["logits"]).abs().max().item()
    assert {name: value for name, value in differences.items() if not value <= 1e-4} == {}
    if left_out := [line for line in done.stderr.splitlines() if "is left out: " in line]:
        pytest.skip(f"{len(differences)} agree; {'; '.join(left_out)}")
    assert differences
