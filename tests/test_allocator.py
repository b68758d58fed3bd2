"""What glibc was told cannot be taken back, so it is told in processes of their own."""

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="glibc is Linux's")

FREED = """
import sys
from pathlib import Path
from vitrail.allocator import keep_freed_memory
if sys.argv[1] == "kept":
    assert keep_freed_memory()
import torch
def megabytes():  # of addresses that the process has
    return int(Path("/proc/self/statm").read_text().split()[0]) * 4096 // 2**20
activations = [torch.ones(4_000_000) for _ in range(16)]  # 256 MB in blocks of 16
most = megabytes()
del activations
print(most - megabytes())
"""


def run(code, *words, **environment):
    settings = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    command = [sys.executable, "-c", code, *words]
    return subprocess.run(command, capture_output=True, text=True, check=True, env=settings | environment).stdout


def test_what_a_batch_has_freed_is_kept():
    assert int(run(FREED, "kept")) < 20
    assert int(run(FREED, "given back")) > 200


def test_what_a_person_has_set_stays():
    code = "from vitrail.allocator import keep_freed_memory; print(keep_freed_memory())"
    assert run(code, MALLOC_ARENA_MAX="2") == "False\n"
    assert run(code) == "True\n"
