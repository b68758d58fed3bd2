"""In processes of their own: what others have freed would hide what is taken."""

import subprocess
import sys

import pytest
import torch

from vitrail.bench.memory import peak_from_here

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows keeps no record that is read")

BEFORE = """
import numpy as np, torch
from vitrail.bench.memory import peak_from_here
old = np.ones(20_000_000)  # 160 MB, which do not count
peak = peak_from_here(torch.device("cpu"))
"""


def megabytes(code):
    command = [sys.executable, "-c", BEFORE + code + "\nprint(peak())"]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout) / 1e6


def test_an_array_that_stays():
    assert megabytes("new = np.ones(15_000_000)") == pytest.approx(120, abs=10)


def test_the_peak_is_remembered_after_it_was_freed():
    assert megabytes("new = np.ones(15_000_000)\ndel new\nnew = np.ones(5_000_000)") == pytest.approx(120, abs=10)


def test_of_two_arrays_at_once_both_count():
    assert megabytes("new = np.ones(15_000_000), np.ones(5_000_000)") == pytest.approx(160, abs=10)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can reset the record")
def test_an_earlier_peak_does_not_count():
    freed = BEFORE.replace("peak =", "del old\npeak =")
    command = [sys.executable, "-c", freed + "new = np.ones(5_000_000)\nprint(peak())"]
    taken = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert taken / 1e6 == pytest.approx(40, abs=10)


def test_what_cannot_be_known_is_none():
    assert peak_from_here(torch.device("mps"))() is None
