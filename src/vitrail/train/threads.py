"""How many processor threads compute: one for little work, where waking the others costs more than they bring."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

# Floating-point operations of a batch's forward pass. Below, one thread is faster; and it leaves the other cores to the
# workers that read images. Fixed, not measured on the spot: another number of threads would change the last bits.
LITTLE = 2e9


@contextmanager
def threads_for(flops: float) -> Iterator[None]:
    """Within the context, one compute thread if a batch's forward pass takes few ``flops``, else as many as before."""
    before = torch.get_num_threads()
    if flops < LITTLE:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
