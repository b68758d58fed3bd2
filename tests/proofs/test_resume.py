"""What the kill test is made of; the kill test itself, smaller, is in tests/recipes/training/test_kill.py."""

from __future__ import annotations

import copy
import random
from pathlib import Path
from typing import Any

import pytest
import torch

from vitrail.proofs.resume import KILLS, bit_equal, differences, epochs_done, random_moments

STATE: dict[str, Any] = {
    "state": {"step": 3, "best": 0.5},
    "weights": {"a": torch.tensor([1.0, -0.0, float("nan")]), "b": torch.arange(4)},
    "optimizer": {"param_groups": [{"lr": 0.1, "betas": (0.9, 0.999), "fused": None}]},
}


def test_bit_equal_is_equal_to_the_last_bit() -> None:
    assert bit_equal(STATE, copy.deepcopy(STATE))
    assert bit_equal(torch.tensor(float("nan")), torch.tensor(float("nan")))
    assert bit_equal({"betas": (0.9, 0.999)}, {"betas": [0.9, 0.999]})
    assert not bit_equal(torch.tensor(0.0), torch.tensor(-0.0))
    assert not bit_equal(torch.tensor(1.0), torch.nextafter(torch.tensor(1.0), torch.tensor(2.0)))
    assert not bit_equal(torch.zeros(2), torch.zeros(2, dtype=torch.int32))
    assert not bit_equal(torch.zeros(2), torch.zeros(2, 1))
    assert not bit_equal(torch.tensor(1.0), 1.0)
    assert not bit_equal({"a": 1}, {"a": 1, "b": 2})
    assert not bit_equal({"a": {"b": [1, 2]}}, {"a": {"b": [1, 3]}})
    assert not bit_equal([1, 2], [1, 2, 3])
    assert not bit_equal([], {})


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "run")


def write_run(folder: Path, **changes: Any) -> Path:
    (folder / "last").mkdir(parents=True)
    for name in ("model.safetensors", "model.json", "metrics.jsonl", "evaluation.json"):
        (folder / name).write_text(f"what is in {name}")
    torch.save({**STATE, **changes}, folder / "last" / "state.pt")
    return folder


def test_equal_runs_have_no_differences(run: Path, tmp_path: Path) -> None:
    assert differences(run, write_run(tmp_path / "other")) == []


@pytest.mark.parametrize("name", ["model.safetensors", "model.json", "metrics.jsonl", "evaluation.json"])
def test_a_file_that_differs_or_is_missing_is_named(run: Path, tmp_path: Path, name: str) -> None:
    other = write_run(tmp_path / "other")
    (other / name).write_text("something else")
    assert differences(run, other) == [name]
    (other / name).unlink()
    assert differences(run, other) == [name]


def test_a_part_of_the_state_that_differs_is_named(run: Path, tmp_path: Path) -> None:
    weights = {**STATE["weights"], "b": torch.arange(1, 5)}
    other = write_run(tmp_path / "other", weights=weights, state={"step": 3, "best": 0.25})
    assert differences(run, other) == ["last/state.pt: state", "last/state.pt: weights"]
    (other / "last" / "state.pt").unlink()
    assert differences(run, other) == ["last/state.pt"]


def test_moments_lie_within_the_run_and_one_is_while_saving() -> None:
    trials = [random_moments(random.Random(number), 7.0) for number in range(50)]
    assert all(len(moments) == KILLS and sum(m.saving for m in moments) == 1 for moments in trials)
    assert all(0 <= moment.seconds <= 7 for moments in trials for moment in moments)
    assert len({moment.seconds for moments in trials for moment in moments}) == 50 * KILLS
    assert random_moments(random.Random(3), 7.0) == trials[3]


def test_epochs_are_counted_by_their_validations(tmp_path: Path) -> None:
    assert epochs_done(tmp_path) == 0
    records = ['{"kind": "train", "step": 1}', '{"kind": "validation", "step": 2}'] * 2
    (tmp_path / "metrics.jsonl").write_text("\n".join(records))
    assert epochs_done(tmp_path) == 2
