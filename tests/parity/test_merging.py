"""Token merging beside the authors' program, a clone in `VITRAIL_REPOSITORIES`/tome (facebookresearch/ToMe)."""

import os
import runpy
from pathlib import Path

import pytest
import torch

from vitrail.nn.attention import Attention
from vitrail.nn.merging import Merging

FILE = Path(os.environ.get("VITRAIL_REPOSITORIES", "nowhere"), "tome", "tome", "merge.py")
pytestmark = pytest.mark.skipif(not FILE.is_file(), reason="VITRAIL_REPOSITORIES has no clone of facebookresearch/ToMe")


@pytest.mark.parametrize("prefix", [1, 2])
@pytest.mark.parametrize(("patches", "pairs"), [(196, 13), (49, 8), (9, 3), (8, 99)])
@torch.no_grad()
def test_tokens_sizes_and_sources_over_several_blocks(prefix, patches, pairs):
    theirs = runpy.run_path(str(FILE))
    torch.manual_seed(0)
    x = y = torch.randn(3, prefix + patches, 16)
    size = source = None
    merging = Merging(pairs, prefix)
    for _ in range(4):
        attention = Attention(16, 2)
        keys = attention.queries_keys_values(x)[1].mean(dim=1)
        merge, _ = theirs["bipartite_soft_matching"](keys, pairs, prefix > 0, prefix > 1)
        if (x.shape[1] - prefix) // 2:
            source = theirs["merge_source"](merge, x, source)
            x, size = theirs["merge_wavg"](merge, x, size)
        merging.attend(attention, y)
        y = merging.merge(y)
        torch.testing.assert_close(y, x)
        assert torch.equal(merging.sizes, size[..., 0])
        ours = torch.nn.functional.one_hot(merging.into, y.shape[1]).transpose(1, 2)
        assert torch.equal(ours.float(), source)
