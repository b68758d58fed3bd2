"""A program: PyTorch runs it without Vitrail, and it says what it is."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest
import torch

from vitrail import models
from vitrail.data.preprocess import Preprocess
from vitrail.errors import CheckpointError
from vitrail.export.program import write_program
from vitrail.tasks import Classification
from vitrail.weights.load import load


def resnet() -> Classification:
    torch.manual_seed(0)
    backbone = models.create("resnet-20", depths=(1, 1, 1), width=8, image_size=(16, 16))
    return Classification("resnet-20", backbone, ("ant", "bee"), Preprocess((16, 16))).eval()


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("program") / "model.pt2"
    write_program(resnet(), path)
    return path


def test_pytorch_alone_runs_it(written: Path) -> None:
    files = {"vitrail.json": ""}
    program = torch.export.load(written, extra_files=files).module()
    images = torch.randint(0, 256, (5, 3, 16, 16), dtype=torch.uint8)
    with torch.inference_mode():
        expected = resnet()(images)
    for count in (1, 2, 5):
        torch.testing.assert_close(program(images[:count]), expected[:count], atol=1e-6, rtol=1e-6)
    assert [file.name for file in written.parent.iterdir()] == ["model.pt2"]
    description = json.loads(files["vitrail.json"])
    assert description["classes"] == ["ant", "bee"]
    assert Preprocess.from_json(description["preprocess"]) == resnet().preprocess


def test_no_path_of_this_machine_is_in_it(written: Path) -> None:
    with zipfile.ZipFile(written) as archive:
        contents = [archive.read(name) for name in archive.namelist()]
    assert any(b"aten.conv2d" in content for content in contents)
    assert not any(b".py" in content for content in contents)


def test_vitrail_does_not_open_programs(written: Path) -> None:
    with pytest.raises(CheckpointError, match=r"torch.export.load, which can run code that is in it; give the run"):
        load(written)
