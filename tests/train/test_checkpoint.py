"""The state comes back to the last bit, or not at all and with one sentence why."""

from __future__ import annotations

import os
import pickle
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vitrail.errors import CheckpointError, DiskFull
from vitrail.train import checkpoint, distributed
from vitrail.train.ema import Ema
from vitrail.train.state import STATE, State

Objects = tuple[nn.Module, torch.optim.Optimizer, Ema | None]
EVERY_FIELD = State(step=7, best=0.625, best_step=5, waited=2, log_bytes=1234, finished=True)


def network(width: int = 4) -> nn.Module:
    return nn.Sequential(nn.Linear(3, width), nn.BatchNorm1d(width), nn.Dropout(0.5), nn.Linear(width, 2))


def objects(seed: int, optimizer: str = "adamw", ema: bool = True, width: int = 4) -> Objects:
    torch.manual_seed(seed)
    module = network(width)
    groups = [
        {"params": [p for p in module.parameters() if p.ndim > 1], "weight_decay": 0.1, "scale": 0.5},
        {"params": [p for p in module.parameters() if p.ndim <= 1], "weight_decay": 0.0, "scale": 1.0},
    ]
    if optimizer == "sgd":
        return module, torch.optim.SGD(groups, lr=0.1, momentum=0.9, nesterov=True), Ema(module, 0.9) if ema else None
    return module, torch.optim.AdamW(groups, lr=0.1), Ema(module, 0.9) if ema else None


def train(things: Objects, first: int, last: int) -> None:
    module, optimizer, ema = things
    for step in range(first, last):
        torch.manual_seed(step)
        module(torch.randn(6, 3)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        if ema is not None:
            ema.update(module, step + 1)


def tensors(things: Objects) -> list[Tensor]:
    """Everything that a checkpoint holds, in a fixed order."""
    module, optimizer, ema = things
    weights = [*module.state_dict().values(), *(ema.weights.values() if ema else ())]
    moments = [optimizer.state[p][key] for p in module.parameters() for key in sorted(optimizer.state.get(p, ()))]
    return weights + moments


def assert_same(one: Objects, other: Objects) -> None:
    pairs = list(zip(tensors(one), tensors(other), strict=True))
    assert all(a.dtype == b.dtype and a.numpy().tobytes() == b.numpy().tobytes() for a, b in pairs)


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Path, Objects]:
    things = objects(0)
    train(things, 0, 3)
    checkpoint.save(tmp_path, EVERY_FIELD, *things)
    return tmp_path, things


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("ema", [True, False])
def test_all_comes_back_and_goes_on_as_if_nothing_had_happened(tmp_path: Path, optimizer: str, ema: bool) -> None:
    things, restored = objects(0, optimizer, ema), objects(1, optimizer, ema)
    train(things, 0, 3)
    checkpoint.save(tmp_path, EVERY_FIELD, *things)
    assert checkpoint.restore(tmp_path, *restored) == EVERY_FIELD
    assert_same(things, restored)
    train(things, 3, 6)
    train(restored, 3, 6)
    assert_same(things, restored)
    for ours, theirs in zip(things[1].param_groups, restored[1].param_groups, strict=True):
        assert (ours["weight_decay"], ours["scale"]) == (theirs["weight_decay"], theirs["scale"])


def test_before_the_first_step_there_is_nothing_to_restore_and_nothing_is_touched(tmp_path: Path) -> None:
    things = objects(0)
    assert checkpoint.restore(tmp_path, *things) == State() == State(step=0, best=float("-inf"), finished=False)
    assert_same(things, objects(0))


def test_frozen_weights_come_back(tmp_path: Path) -> None:
    def frozen(seed: int) -> Objects:
        module, _, ema = objects(seed)
        module[0].requires_grad_(False)  # type: ignore[index]
        return module, torch.optim.AdamW([p for p in module.parameters() if p.requires_grad]), ema

    things, restored = frozen(0), frozen(1)
    train(things, 0, 2)
    checkpoint.save(tmp_path, State(2), *things)
    checkpoint.restore(tmp_path, *restored)
    train(things, 2, 4)
    train(restored, 2, 4)
    assert_same(things, restored)


def test_saving_changes_nothing_and_replaces_the_last_state(saved: tuple[Path, Objects]) -> None:
    folder, things = saved
    expected = objects(0)
    train(expected, 0, 3)
    assert_same(things, expected)
    train(things, 3, 4)
    checkpoint.save(folder, State(step=4), *things)
    assert checkpoint.restore(folder, *objects(1)) == State(step=4)
    assert [path.name for path in (folder / "last").iterdir()] == ["state.pt"]


def one_sentence(folder: Path, things: Objects) -> str:
    """What restoring says when it refuses; the objects stay as they are."""
    before = [tensor.clone() for tensor in tensors(things)]
    with pytest.raises(CheckpointError) as caught:
        checkpoint.restore(folder, *things)
    assert all(torch.equal(a, b) for a, b in zip(before, tensors(things), strict=True))
    said = str(caught.value)
    assert str(folder / STATE) in said
    assert "\n" not in said
    return said


def test_a_file_cut_short_at_any_length_is_refused(saved: tuple[Path, Objects]) -> None:
    folder, things = saved
    whole = (folder / STATE).read_bytes()
    lengths = {0, 1, 3, 4, 100, len(whole) // 2, *range(len(whole) - 40, len(whole)), *range(0, len(whole), 197)}
    for length in lengths:
        (folder / STATE).write_bytes(whole[:length])
        assert "damaged or cut short; train again with --overwrite." in one_sentence(folder, things)


def test_a_changed_byte_is_noticed_or_does_not_matter(saved: tuple[Path, Objects]) -> None:
    """Some bytes of the archive carry nothing, such as padding; every other is covered by a check sum."""
    folder, things = saved
    whole = (folder / STATE).read_bytes()
    chance = random.Random(0)
    refused = 0
    for place in sorted(chance.sample(range(len(whole)), 100)):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << chance.randrange(8)
        (folder / STATE).write_bytes(damaged)
        restored = objects(1)
        try:
            assert checkpoint.restore(folder, *restored) == EVERY_FIELD
        except CheckpointError as error:
            assert "damaged" in str(error)  # noqa: PT017
            refused += 1
        else:
            assert_same(things, restored)
    assert refused > 30


def test_another_number_of_processes_is_refused(saved: tuple[Path, Objects], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "world", lambda: 2)
    assert "was written by 1 process(es); resume with as many, not 2." in one_sentence(saved[0], objects(1))


@pytest.mark.parametrize("other", [{"width": 5}, {"width": 3}])
def test_the_state_of_another_model_is_refused(saved: tuple[Path, Objects], other: dict[str, Any]) -> None:
    assert "belongs to another model" in one_sentence(saved[0], objects(1, **other))


@pytest.mark.parametrize("content", [{"weights": {}}, {"state": {"from the future": 1}}, {}, [1], torch.zeros(2)])
def test_something_else_is_refused(saved: tuple[Path, Objects], content: Any) -> None:
    torch.save(content, saved[0] / STATE)
    assert "is not the state of a training run" in one_sentence(saved[0], objects(1))


class Bomb:
    """What unpickles as a call, here of a harmless function."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.path,)


def test_a_pickle_that_would_run_code_is_refused(saved: tuple[Path, Objects]) -> None:
    folder, things = saved
    bomb = Bomb(folder / "exploded")
    torch.save({"state": bomb}, folder / STATE)
    assert "would run code when opened" in one_sentence(folder, things)
    (folder / STATE).write_bytes(pickle.dumps(bomb))  # not even an archive
    one_sentence(folder, things)
    assert not (folder / "exploded").exists()
    torch.load(save_again(folder, bomb), weights_only=False)
    assert (folder / "exploded").exists()  # the bomb is a real one


def save_again(folder: Path, bomb: Bomb) -> Path:
    torch.save(bomb, folder / "bomb.pt")
    return folder / "bomb.pt"


def test_what_a_killed_process_left_is_removed(saved: tuple[Path, Objects]) -> None:
    folder, _ = saved
    (folder / "last" / ".state.pt.abc.pt").write_bytes(b"half")
    checkpoint.restore(folder, *objects(1))
    assert [path.name for path in (folder / "last").iterdir()] == ["state.pt"]


def test_a_full_disk_keeps_the_old_state(saved: tuple[Path, Objects], monkeypatch: pytest.MonkeyPatch) -> None:
    folder, things = saved
    before = (folder / STATE).read_bytes()

    def half(path: Path, data: memoryview) -> None:
        with path.open("wb") as file:
            file.write(data[: len(data) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", half)
    with pytest.raises(DiskFull, match="could not be written"):
        checkpoint.save(folder, State(step=9), *things)
    assert (folder / STATE).read_bytes() == before
    assert [path.name for path in (folder / "last").iterdir()] == ["state.pt"]
