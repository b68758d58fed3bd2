"""What is written is whole, plain and safe, and a full disk leaves what was there."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest
import safetensors.torch
import torch

import vitrail
from vitrail import models
from vitrail.data.preprocess import Preprocess
from vitrail.errors import DiskFull
from vitrail.tasks.classification import Classification
from vitrail.weights.save import DESCRIPTION, FORMAT, WEIGHTS, save_description, save_weights


def classifier() -> Classification:
    backbone = models.create("resnet-18", depths=(1, 1), width=4, image_size=16)
    return Classification("resnet-18", backbone, ("ant", "bée"), Preprocess(size=(16, 16)))


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_description_is_json_that_people_can_read(tmp_path: Path) -> None:
    save_description(classifier(), tmp_path / "run")
    assert list(files(tmp_path / "run")) == [DESCRIPTION]
    text = (tmp_path / "run" / DESCRIPTION).read_text(encoding="utf-8")
    assert text.endswith("}\n")
    assert '"bée"' in text
    description = json.loads(text)
    assert (description["format"], description["vitrail"]) == (FORMAT, vitrail.__version__)
    assert description["model"] == "resnet-18"
    assert description["config"]["depths"] == [1, 1]


def test_weights_come_back_with_names_types_and_bits(tmp_path: Path) -> None:
    task = classifier()
    with torch.no_grad():
        next(task.parameters())[0] = torch.tensor(float("-0.0"))
    save_weights(task.state_dict(), tmp_path)
    assert list(files(tmp_path)) == [WEIGHTS]
    saved = safetensors.torch.load_file(tmp_path / WEIGHTS)
    assert saved.keys() == task.state_dict().keys()
    assert saved["backbone.stem.0.norm.num_batches_tracked"].dtype == torch.int64
    for name, value in task.state_dict().items():
        assert saved[name].dtype == value.dtype
        assert saved[name].numpy().tobytes() == value.numpy().tobytes()


def test_any_layout_in_memory_can_be_saved(tmp_path: Path) -> None:
    weights = {
        "channels last": torch.randn(4, 3, 2, 2).to(memory_format=torch.channels_last),
        "turned": torch.randn(3, 5).T,
        "cut": torch.randn(10)[2:5],
        "with gradient": torch.randn(3, requires_grad=True),
        "half": torch.randn(3).bfloat16(),
        "scalar": torch.tensor(3),
    }
    save_weights(weights, tmp_path)
    for name, value in safetensors.torch.load_file(tmp_path / WEIGHTS).items():
        assert torch.equal(value, weights[name]), name
        assert value.dtype == weights[name].dtype


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_leaves_the_old_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    task = classifier()
    save_description(task, tmp_path)
    save_weights(task.state_dict(), tmp_path)
    before = files(tmp_path)

    def half(path: Path, data: bytes) -> None:
        with path.open("wb") as file:
            file.write(data[: len(data) // 2])
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "write_bytes", half)
    with pytest.raises(DiskFull, match=r"model\.safetensors could not be written; free some space"):
        save_weights({name: value + 1 for name, value in task.state_dict().items()}, tmp_path)
    with pytest.raises(DiskFull, match=r"model\.json could not be written"):
        save_description(classifier(), tmp_path)
    assert files(tmp_path) == before
