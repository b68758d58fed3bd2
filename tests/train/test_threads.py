from __future__ import annotations

import pytest
import torch

from vitrail.train.threads import LITTLE, threads_for


@pytest.mark.parametrize(("flops", "expected"), [(LITTLE / 2, 1), (LITTLE * 2, 2)])
def test_one_thread_for_little_work_and_as_many_as_before_afterwards(flops, expected):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with threads_for(flops):
            assert torch.get_num_threads() == expected
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
