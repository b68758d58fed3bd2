"""What a figure was measured on."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from vitrail import __version__


@dataclass(frozen=True)
class Machine:
    """What speed depends on.

    Attributes:
        processor: as its maker calls it.
        cores: those that this process may use.
        threads: that compute.
        features: vector and matrix instructions that PyTorch finds.
        accelerator: the GPU's name where it computes, else None.
        busy: cores that other programs kept busy while this was asked; None where that is not known.
        system, python, torch, vitrail: names and versions.
    """

    processor: str
    cores: int
    threads: int
    features: tuple[str, ...]
    accelerator: str | None
    busy: float | None
    system: str
    python: str
    torch: str
    vitrail: str


def machine(device: torch.device | str = "cpu") -> Machine:
    """The machine as it is now, for work on ``device``."""
    return Machine(
        processor=processor(),
        cores=cores(),
        threads=torch.get_num_threads(),
        features=features(),
        accelerator=accelerator(torch.device(device)),
        busy=busy(),
        system=f"{platform.system()} {platform.machine()}",
        python=platform.python_version(),
        torch=str(torch.__version__),
        vitrail=__version__,
    )


def in_words(found: Machine) -> str:
    """The machine in a line."""
    instructions = f" ({', '.join(found.features)})" if found.features else ""
    processor = f"{found.processor}{instructions}, {found.threads} of {found.cores} cores"
    where = f"{found.accelerator}; {processor}" if found.accelerator else processor
    return f"{where}; {found.system}, Python {found.python}, PyTorch {found.torch}, Vitrail {found.vitrail}"


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor() -> str:
    """The processor's name."""
    if sys.platform == "linux":
        names = [line.partition(":")[2] for line in _lines(Path("/proc/cpuinfo")) if line.startswith("model name")]
        if names:
            return names[0].strip()
    if sys.platform == "darwin":
        asked = ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]
        return subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip() or platform.machine()
    return platform.processor() or platform.machine()


def features() -> tuple[str, ...]:
    """Vector and matrix instructions, by their makers' names."""
    vectors = torch.backends.cpu.get_cpu_capability()
    found = {
        "VNNI": torch.cpu._is_vnni_supported(),
        "AVX512-BF16": torch.cpu._is_avx512_bf16_supported(),
        "AMX": torch.cpu._is_amx_tile_supported(),
    }
    return (*(() if vectors == "DEFAULT" else (vectors,)), *(name for name, there in found.items() if there))


def accelerator(device: torch.device) -> str | None:
    """The name of the GPU, None for the processor itself."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return None if device.type == "cpu" else f"{processor()} ({device.type})"


def busy(seconds: float = 0.25) -> float | None:
    """Cores that are busy while this process sleeps, of Linux's own count; None elsewhere."""
    before = _ticks()
    time.sleep(seconds)
    total, idle = (after - first for after, first in zip(_ticks(), before, strict=True))
    return round((1 - idle / total) * (os.cpu_count() or 1), 2) if total else None


def _ticks() -> tuple[int, int]:
    """Ticks of all cores since the system started, and those without work (proc(5), /proc/stat)."""
    lines = _lines(Path("/proc/stat"))
    if not lines:
        return 0, 0
    user, nice, system, idle, iowait, *others = map(int, lines[0].split()[1:9])
    return user + nice + system + idle + iowait + sum(others), idle + iowait


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
