"""A run's folder becomes a task again, or one sentence says what is wrong with it."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from vitrail import models
from vitrail.data.preprocess import Preprocess
from vitrail.errors import CheckpointError, RunError, UserError
from vitrail.tasks.classification import Classification
from vitrail.weights.save import DESCRIPTION, FORMAT, WEIGHTS, save_description, save_weights
from vitrail.weights.saved import load

TINY_VIT = {"width": 8, "depth": 1, "heads": 2, "mlp": 8, "image_size": 8, "patch_size": 4}


def classifier(**changes: Any) -> Classification:
    torch.manual_seed(0)
    backbone = models.create("vit-ti16", **(TINY_VIT | changes))
    return Classification("vit-ti16", backbone, ("ant", "bee"), Preprocess(size=(8, 8)), temperature=1.5)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    task = classifier()
    save_description(task, tmp_path / "run")
    save_weights(task.state_dict(), tmp_path / "run")
    return tmp_path / "run"


def refusal(folder: Path, kind: type[UserError]) -> str:
    """The one sentence with which the folder is refused; it names what is wrong."""
    with pytest.raises(kind) as caught:
        load(folder)
    assert type(caught.value) is kind
    said = str(caught.value)
    assert str(folder) in said
    assert "\n" not in said
    return said


@pytest.mark.parametrize("as_given", [Path, str])
def test_the_task_comes_back_ready_to_predict(folder: Path, as_given: Callable[[Path], str | Path]) -> None:
    task, loaded = classifier().eval(), load(as_given(folder))
    assert isinstance(loaded, Classification)
    assert not loaded.training
    assert loaded.to_json() == task.to_json()
    assert {p.device.type for p in loaded.parameters()} == {"cpu"}
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    assert loaded.predict(image) == task.predict(image)
    for name, value in task.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value)


def test_the_loaded_task_does_not_hang_on_the_file(folder: Path) -> None:
    """On Windows a file that is mapped into memory could not be replaced."""
    loaded = load(folder)
    before = copy.deepcopy(loaded.state_dict())
    save_weights({name: value + 1 for name, value in before.items()}, folder)
    assert all(torch.equal(value, before[name]) for name, value in loaded.state_dict().items())


# --------------------------------------------------------------------------------------------------------- the folder


def test_a_missing_folder(folder: Path) -> None:
    missing = folder / "missing"
    assert refusal(missing, RunError) == f"there is no run folder {missing}; give the --out folder of a training run."
    (folder / "file").touch()
    assert "there is no run folder" in refusal(folder / "file", RunError)


def test_a_folder_without_a_model(tmp_path: Path) -> None:
    assert "is not a finished run: it has no model.json" in refusal(tmp_path, RunError)


def test_a_folder_without_weights(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    said = refusal(folder, RunError)
    assert said == f"{folder} is incomplete: it has no {WEIGHTS}; let its training go on with --resume."


# ---------------------------------------------------------------------------------------------------- the description


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    description = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
    change(description)
    (folder / DESCRIPTION).write_text(json.dumps(description), encoding="utf-8")


def test_a_newer_format(folder: Path) -> None:
    edit(folder, lambda d: d.update(format=FORMAT + 1, vitrail="9.9"))
    assert refusal(folder, RunError) == (
        f"{folder} was written by a newer Vitrail (9.9); update with `pip install --upgrade vitrail`."
    )


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"null", b"[1, 2]", b"{}", b"\xff\xfe", b'{"format": "new"}', b'{"format": 1e999}', b"[" * 100_000],
    ids=lambda content: content[:12].decode(errors="replace"),
)
def test_damaged_json(folder: Path, content: bytes) -> None:
    (folder / DESCRIPTION).write_bytes(content)
    assert "is damaged" in refusal(folder, CheckpointError)


@pytest.mark.parametrize("length", [1, 20, 100, 300])
def test_a_description_cut_short(folder: Path, length: int) -> None:
    (folder / DESCRIPTION).write_bytes((folder / DESCRIPTION).read_bytes()[:length])
    assert "is damaged" in refusal(folder, CheckpointError)


@pytest.mark.parametrize("task", ["segmentation of the future", None, ["classification"]])
def test_an_unknown_task(folder: Path, task: object) -> None:
    edit(folder, lambda d: d.update(task=task))
    assert "names no known task" in refusal(folder, CheckpointError)


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.update(model="vit-b61"),
        lambda d: d["config"].update(future=1),
        lambda d: d["config"].update(heads=0),
        lambda d: d["config"].update(heads=3),
        lambda d: d["config"].update(width=-8),
        lambda d: d["config"].update(width="wide"),
        lambda d: d["config"].update(image_size=[8]),
        lambda d: d.update(config=7),
        lambda d: d["preprocess"].update(future=1),
        lambda d: d["preprocess"].update(std=[0, 0, 0]),
        lambda d: d.update(preprocess=None),
        lambda d: d.update(classes=5),
        lambda d: d.update(temperature=0),
        lambda d: d.update(temperature="warm"),
    ],
)
def test_a_description_of_nothing_that_can_be(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    edit(folder, change)
    assert "does not describe a model" in refusal(folder, CheckpointError)


def places(value: Any) -> Iterator[tuple[dict[str, Any], str]]:
    """Every key of a nested dictionary, with the dictionary that it is in."""
    for key, below in value.items():
        yield value, key
        if isinstance(below, dict):
            yield from places(below)


def test_whatever_is_missing_is_an_error_that_names_the_file(folder: Path) -> None:
    """All keys but that of the version which wrote it are needed; the config's have defaults."""
    whole = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
    for number, (_, key) in enumerate(places(whole)):
        cut = copy.deepcopy(whole)
        container, _ = list(places(cut))[number]
        del container[key]
        (folder / DESCRIPTION).write_text(json.dumps(cut), encoding="utf-8")
        if key in ("vitrail", "centre") or container is cut.get("config"):
            continue
        refusal(folder, CheckpointError)


# --------------------------------------------------------------------------------------------------------- the weights


def test_weights_cut_short_at_any_length(folder: Path) -> None:
    whole = (folder / WEIGHTS).read_bytes()
    for length in {0, 1, 7, 8, 9, 100, *range(0, len(whole), 131), *range(len(whole) - 9, len(whole))}:
        (folder / WEIGHTS).write_bytes(whole[:length])
        assert "model.safetensors is damaged or cut short" in refusal(folder, CheckpointError)


def test_a_damaged_header_never_ends_in_another_error(folder: Path) -> None:
    whole = (folder / WEIGHTS).read_bytes()
    end = 8 + int.from_bytes(whole[:8], "little")
    chance = random.Random(0)
    refused = 0
    for place in chance.sample(range(end), 150):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << chance.randrange(8)
        (folder / WEIGHTS).write_bytes(damaged)
        try:
            load(folder)
        except CheckpointError:
            refused += 1
    assert refused > 100


def test_weights_that_are_no_safetensors(folder: Path) -> None:
    torch.save(classifier().state_dict(), folder / WEIGHTS)
    assert "is damaged or cut short" in refusal(folder, CheckpointError)


def test_weights_of_another_model_are_listed_tensor_by_tensor(folder: Path) -> None:
    weights = safetensors.torch.load_file(folder / WEIGHTS)
    del weights["backbone.norm.bias"]
    weights["backbone.registers"] = torch.zeros(1, 2, 8)
    weights["head.linear.weight"] = torch.zeros(5, 8)
    weights["head.linear.bias"] = torch.zeros(5)
    save_weights(weights, folder)
    assert refusal(folder, CheckpointError) == (
        f"{folder / WEIGHTS} does not fit this model: missing backbone.norm.bias; unexpected backbone.registers; "
        "head.linear.bias is (5,), not (2,); head.linear.weight is (5, 8), not (2, 8)."
    )


def test_another_number_of_classes_in_the_description(folder: Path) -> None:
    edit(folder, lambda d: d.update(classes=["ant", "bee", "cat"]))
    assert "head.linear.weight is (2, 8), not (3, 8)" in refusal(folder, CheckpointError)
