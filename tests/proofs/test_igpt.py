"""What the proofs of iGPT compare with, against loops."""

import math
from collections import Counter

import pytest
import torch

from vitrail.proofs.igpt import bigram


def test_the_bigram_counts_which_colour_follows_which_in_a_row():
    train, test = (torch.randint(3, (count, 4, 5), generator=torch.Generator().manual_seed(count)) for count in (7, 2))
    counts = Counter()
    for image in train.tolist():
        for row in image:
            counts.update(zip(["edge", *row], row, strict=False))
    nats = []
    for image in test.tolist():
        for row in image:
            for before, colour in zip(["edge", *row], row, strict=False):
                follow = sum(counts[before, each] + 1 for each in range(3))
                nats.append(-math.log((counts[before, colour] + 1) / follow))
    assert bigram(train, test, 3) == pytest.approx(sum(nats) / len(nats), abs=1e-5)


def test_what_is_always_so_costs_nothing():
    stripes = torch.arange(2).repeat(8)[:, None].expand(16, 6).repeat(500, 1, 1)
    assert bigram(stripes, stripes[:1], 2) == pytest.approx(math.log(2) / 6, abs=1e-3)  # but for a row's first pixel
