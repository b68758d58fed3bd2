"""In processes of their own: what others have freed would hide what is taken."""

import subprocess
import sys

import pytest
import torch

from vitrail.bench.memory import is_out_of_memory, peak_from_here

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows keeps no record that is read")

BEFORE = """
import numpy as np, torch
from vitrail.bench.memory import peak_from_here
cpu = torch.device("cpu")
old = np.ones(20_000_000)  # 160 MB, which do not count
peak = peak_from_here(cpu)
"""


def megabytes(code):
    command = [sys.executable, "-c", BEFORE + code]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [int(line) / 1e6 for line in said.splitlines()]


def test_the_peak_is_remembered_after_it_was_freed():
    code = "new = np.ones(15_000_000)\nprint(peak())\ndel new\nnew = np.ones(5_000_000)\nprint(peak())"
    assert megabytes(code) == pytest.approx([120, 120], abs=10)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can reset the record")
def test_an_earlier_peak_does_not_count_and_all_that_is_taken_at_once_does():
    code = "del old\npeak = peak_from_here(cpu)\nnew = np.ones(5_000_000), np.ones(2_500_000)\nprint(peak())"
    assert megabytes(code) == pytest.approx([60], abs=10)


def test_what_cannot_be_known_is_none():
    assert peak_from_here(torch.device("mps"))() is None


@pytest.mark.parametrize("size", [10**15, 10**19])
def test_what_pytorch_says_when_memory_ends(size):
    with pytest.raises((RuntimeError, TypeError)) as raised:
        torch.empty(size, 100)
    assert is_out_of_memory(raised.value) == (size < 2**63)
    assert is_out_of_memory(MemoryError())
    assert not is_out_of_memory(RuntimeError("shapes differ"))
