import os
import platform
from pathlib import Path

import pytest
import torch

from vitrail import __version__
from vitrail.bench import machine as of_machine
from vitrail.bench.machine import in_words, machine


def test_it_says_what_speed_depends_on():
    found = machine()
    assert (found.torch, found.python, found.vitrail) == (torch.__version__, platform.python_version(), __version__)
    assert found.threads == torch.get_num_threads()
    assert 1 <= found.cores <= (os.cpu_count() or 1)
    assert found.accelerator is None


@pytest.mark.skipif(not Path("/proc/cpuinfo").is_file(), reason="Linux says there what the processor is")
def test_the_processor_is_called_as_the_system_calls_it():
    text = Path("/proc/cpuinfo").read_text()
    if "model name" not in text:
        pytest.skip("this processor has no name")
    assert f": {machine().processor}\n" in text
    for feature, flag in {"AVX512-BF16": "avx512_bf16", "AMX": "amx_tile"}.items():
        assert (feature in machine().features) == (flag in text.split())


def test_how_busy_others_are_is_counted_in_cores(monkeypatch):
    """Of 400 ticks on four cores 100 were idle: three cores were busy."""
    ticks = iter([["cpu  10 0 10 80 0 0 0 0 0 0"], ["cpu  260 10 40 160 20 5 5 0 0 0"]])
    monkeypatch.setattr(of_machine, "_lines", lambda path: next(ticks))
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    assert of_machine.busy(seconds=0) == 3.0


def test_without_a_count_it_is_not_known_how_busy_others_are(monkeypatch):
    monkeypatch.setattr(of_machine, "_lines", lambda path: [])
    assert of_machine.busy(seconds=0) is None


def test_an_accelerator_is_named(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Some GPU")
    found = machine("cuda:0")
    assert found.accelerator == "Some GPU"
    assert in_words(found).startswith("Some GPU; ")


def test_in_words_are_all_that_a_reader_of_a_table_needs(monkeypatch):
    monkeypatch.setattr(of_machine, "processor", lambda: "Some processor")
    monkeypatch.setattr(of_machine, "features", lambda: ("AVX512", "AMX"))
    monkeypatch.setattr(of_machine, "cores", lambda: 4)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    words = in_words(machine())
    assert words.startswith("Some processor (AVX512, AMX), 2 of 4 cores; ")
    assert words.endswith(f"PyTorch {torch.__version__}, Vitrail {__version__}")
