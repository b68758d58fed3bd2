"""The same coordinates give the same numbers everywhere, other coordinates others."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from scipy import stats

from vitrail.data.rng import PURPOSES, generator, torch_seed, uniform
from vitrail.errors import SettingError


def draw(seed: int, purpose: str, *coordinates: int) -> tuple[int, ...]:
    return tuple(generator(seed, purpose, *coordinates).integers(2**63, size=4).tolist())


def test_it_is_numpys_generator_of_exactly_these_numbers() -> None:
    expected = np.random.Generator(np.random.PCG64(np.random.SeedSequence([3, 2, 7, 11])))
    assert draw(3, "order", 7, 11) == tuple(expected.integers(2**63, size=4).tolist())


def test_nothing_that_was_drawn_before_matters() -> None:
    first = draw(1, "augment", 2, 3)
    generator(1, "augment", 2, 3).random(1000)
    np.random.seed(0)  # noqa: NPY002
    assert draw(1, "augment", 2, 3) == first


def test_another_process_draws_the_same() -> None:
    program = "from vitrail.data.rng import torch_seed; print(torch_seed(4, 'dropout', 5, 6))"
    for hash_seed in ("1", "2"):
        ended = subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert int(ended.stdout) == torch_seed(4, "dropout", 5, 6)


def test_different_coordinates_give_different_numbers() -> None:
    assert len(set(PURPOSES.values())) == len(PURPOSES)
    drawn = {
        draw(seed, purpose, epoch, index)
        for seed, purpose, epoch, index in itertools.product(range(3), PURPOSES, range(4), range(4))
    }
    assert len(drawn) == 3 * len(PURPOSES) * 16


def test_seeds_for_torch_fit_and_are_as_different() -> None:
    seeds = {torch_seed(0, "dropout", step, rank) for step in range(100) for rank in range(4)}
    assert len(seeds) == 400
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_a_large_seed_is_a_seed() -> None:
    assert draw(2**70, "split") != draw(2**70 + 1, "split")


@pytest.mark.parametrize("seed", [-1, -(2**40)])
def test_a_negative_seed_is_refused(seed: int) -> None:
    with pytest.raises(SettingError, match=f"the seed must be 0 or more, not {seed}"):
        generator(seed, "order", 0)


class TestUniform:
    """Numbers for masks: a function of each sample's draw."""

    def test_they_are_splitmix64s(self):
        """Against the generator of Steele et al. in Python's whole numbers, seeded with the mixture of the draw."""
        word = (1 << 64) - 1

        def mixed(x):
            x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & word
            x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & word
            return x ^ (x >> 31)

        draws = [0, 1, 12345, 2**63 - 1]
        expected = [
            [(mixed((mixed(draw) + n * 0x9E3779B97F4A7C15) & word) >> 40) / 2**24 for n in range(1, 6)]
            for draw in draws
        ]
        assert uniform(torch.tensor(draws), 5).tolist() == expected

    def test_they_are_uniform_and_of_one_another_independent(self):
        numbers = uniform(torch.arange(50), 4000).double()
        assert stats.kstest(numbers.flatten().numpy(), "uniform").pvalue > 1e-3
        assert torch.corrcoef(numbers).sub(torch.eye(50)).abs().max() < 0.08
        assert ((numbers >= 0) & (numbers < 1)).all()

    def test_a_row_depends_on_its_own_draw_alone(self):
        draws = torch.tensor([7, 8, 9])
        assert torch.equal(uniform(draws, 6)[1], uniform(draws[1:2], 6)[0])
        assert torch.equal(uniform(draws, 6)[:, :3], uniform(draws, 3))
