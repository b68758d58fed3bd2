"""The most memory that something takes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import torch

STATUS = Path("/proc/self/status")
CLEAR = Path("/proc/self/clear_refs")  # proc(5): writing 5 sets the peak of the resident set to what it is now


def peak_from_here(device: torch.device) -> Callable[[], int | None]:
    """Start to watch; what is returned says the bytes that were taken at most since then, beyond those taken now.

    On CUDA these are the bytes of tensors. On a CPU they are the resident set of the whole process, so that memory that
    was freed before but kept by the allocator hides what is taken out of it: watch in a new process, from before the
    model is made. On Linux the peak is the system's own record (VmHWM). On macOS it is that of `getrusage`, which
    cannot be reset: what stays below an earlier peak counts as nothing. On Windows and on MPS it is not known: None.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        taken = torch.cuda.memory_allocated(device)
        return lambda: torch.cuda.max_memory_allocated(device) - taken
    if device.type != "cpu":
        return lambda: None
    if STATUS.is_file():
        before = _reset()
        return lambda: max(0, _status("VmHWM") - before)
    if sys.platform == "darwin":
        before = _most_resident()
        return lambda: _most_resident() - before
    return lambda: None


def _reset() -> int:
    """Bytes resident now, to which the peak is reset; the peak until now, where it may not be."""
    try:
        CLEAR.write_text("5")
    except OSError:
        return _status("VmHWM")
    return _status("VmRSS")


def _status(field: str) -> int:
    """A field of the process's status, in bytes. Not `getrusage`: after exec, Linux keeps the parent's peak there."""
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(f"{field}:"))
    return int(line.split()[1]) * 1024


def _most_resident() -> int:
    import resource  # which Windows does not have

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # in bytes on macOS, in kilobytes elsewhere


def is_out_of_memory(error: BaseException) -> bool:
    """Whether work failed because there was no more memory; on a CPU PyTorch has no exception of its own for it."""
    words = ("DefaultCPUAllocator", "Storage size calculation overflowed")
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or any(word in str(error) for word in words)
