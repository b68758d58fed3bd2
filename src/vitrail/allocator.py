"""Memory that a batch has freed is kept for the next one; what loading has freed is given back."""

from __future__ import annotations

import ctypes
import os
import sys
from contextlib import suppress

# Of glibc's malloc.h: parameters of mallopt, and what they are set to.
OPTIONS = {
    -1: 2**31 - 1,  # M_TRIM_THRESHOLD: freed memory is given back only beyond this many bytes
    -3: 2**25,  # M_MMAP_THRESHOLD: smaller blocks come from what was freed; a larger value is refused
    -8: 1,  # M_ARENA_MAX: all threads share what was freed
}


def keep_freed_memory() -> bool:
    """Tell glibc to keep what is freed; returns whether it does.

    By itself it gives the memory of a batch's activations back to the system and takes it anew for the next batch,
    which writes zeros into every page of it first. No other C library, and no setting of a person's own in
    ``MALLOC_…``, is touched. The most memory that a process ever has is the same.
    """
    if sys.platform != "linux" or any(name.startswith("MALLOC_") for name in os.environ):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):  # musl has neither
        return False
    answers = [mallopt(option, value) for option, value in OPTIONS.items()]  # each is set, whatever the others say
    return answers == [1] * len(OPTIONS)


def give_back_freed_memory() -> None:
    """Let glibc return what is free now to the system, once, as after weights were converted."""
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):  # musl has no malloc_trim
            ctypes.CDLL("libc.so.6").malloc_trim(0)
