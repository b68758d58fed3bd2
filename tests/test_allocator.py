"""glibc's answer is checked in a process of its own, since it cannot be taken back."""

import os
import subprocess
import sys

import pytest

COUNT = """
import resource, sys
from vitrail.allocator import keep_freed_memory
if sys.argv[1] == "kept":
    assert keep_freed_memory()
import torch
torch.set_num_threads(1)
def batch():
    for _ in range(4):
        torch.ones(2_000_000)  # 8 MB
batch()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    batch()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(way, **environment):
    settings = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    done = subprocess.run(
        [sys.executable, "-c", COUNT, way], capture_output=True, text=True, check=True, env=settings | environment
    )
    return int(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc is Linux's")
def test_memory_is_not_taken_from_the_system_again_and_again():
    assert faults("kept") < faults("as it is") / 5


@pytest.mark.skipif(sys.platform != "linux", reason="glibc is Linux's")
def test_what_a_person_has_set_stays():
    code = "from vitrail.allocator import keep_freed_memory; print(keep_freed_memory())"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"MALLOC_ARENA_MAX": "2"}
    )
    assert done.stdout == "False\n"
