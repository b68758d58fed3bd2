"""A run goes out as a folder of another library's, and is checked on the way."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
import transformers

from vitrail.errors import CheckpointError, RunError, SettingError
from vitrail.recipes.export import Export, export
from vitrail.recipes.settings import Stated
from vitrail.recipes.train import train
from vitrail.weights.load import load

SHAPE = ("width=32", "depth=2", "heads=2", "mlp=64", "patch_size=4")


@pytest.fixture(scope="module")
def exportable(colours, tiny, tmp_path_factory):
    """A run of a model that both libraries have."""
    folder = tmp_path_factory.mktemp("exportable") / "run"
    train(tiny(colours.data, folder, model="vit-s16", config=SHAPE, weights="none", image_size=16))
    return folder


@torch.no_grad()
def test_transformers_opens_a_run(exportable, tmp_path):
    answer = export(Export(str(exportable), "transformers", tmp_path / "out"))
    assert answer == {"folder": str(tmp_path / "out"), "to": "transformers", "model": "vit-s16", "max_difference": 0.0}
    model = transformers.AutoModelForImageClassification.from_pretrained(tmp_path / "out").eval()
    ours = load(exportable)
    images = torch.randint(0, 256, (3, 3, 16, 16), dtype=torch.uint8)
    theirs = model(ours.preprocess.normalize(images)).logits
    torch.testing.assert_close(theirs, ours(images), atol=1e-5, rtol=1e-5)
    assert [model.config.id2label[k] for k in range(6)] == list(ours.classes)


@pytest.mark.parametrize("library", ["timm", "transformers"])
def test_what_was_exported_is_a_model_for_every_command(colours, exportable, tmp_path, vitrail, library):
    out = tmp_path / "out"
    export(Export(str(exportable), library, out))
    ours, back = load(exportable), load(out)
    assert back.classes == ours.classes
    assert back.preprocess.size == ours.preprocess.size
    assert all(torch.equal(value, back.state_dict()[name]) for name, value in ours.state_dict().items())
    picture = next((colours.data / "red").iterdir())
    said = vitrail("predict", out, picture, "--json", "--device", "cpu")
    assert said.status == 0
    assert json.loads(said.out) != []
    assert "red" in said.out
    again = export(Export(str(out), library, tmp_path / "again"))
    assert again["max_difference"] == 0
    for file in out.iterdir():
        assert (tmp_path / "again" / file.name).read_bytes() == file.read_bytes()


def test_the_folder_lies_beside_the_run(exportable, tmp_path):
    run = shutil.copytree(exportable, tmp_path / "run")
    assert export(Export(str(run), "timm"))["folder"] == f"{run}-timm"
    assert (tmp_path / "run-timm" / "config.json").is_file()


def test_a_folder_that_is_not_empty(exportable, tmp_path):
    (tmp_path / "config.json").write_text("mine")
    with pytest.raises(SettingError, match=r"is not empty; choose another --out, or write into it with --overwrite"):
        export(Export(str(exportable), "timm", tmp_path))
    assert (tmp_path / "config.json").read_text() == "mine"
    export(Export(str(exportable), "timm", tmp_path, overwrite=True))
    assert load(tmp_path).classes == load(exportable).classes


def test_a_file_where_the_folder_should_be(exportable, tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(SettingError, match="is not empty"):
        export(Export(str(exportable), "timm", tmp_path / "out"))


def test_a_family_that_the_library_does_not_have_leaves_no_folder(paint, tiny, tmp_path):
    data = paint(tmp_path / "data", ["red", "blue"], count=6)
    train(tiny(data, tmp_path / "run", model="lenet-5", config=()))
    with pytest.raises(SettingError, match=r"timm has no lenet; no other library does\."):
        export(Export(str(tmp_path / "run"), "timm", tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_file_of_weights_goes_from_one_library_to_the_other(exportable, tmp_path):
    export(Export(str(exportable), "timm", tmp_path / "timm"))
    shutil.copy(tmp_path / "timm" / "model.safetensors", tmp_path / "weights.safetensors")
    file, out = str(tmp_path / "weights.safetensors"), tmp_path / "out"
    with pytest.raises(CheckpointError, match="does not fit the model vit-s16: "):
        export(Export(file, "transformers", out, stated=Stated(layout="timm", model="vit-s16")))
    stated = Stated(layout="timm", model="vit-s16", config=(*SHAPE, "image_size=16,16"))
    export(Export(file, "transformers", out, stated=stated))
    images = torch.randn(2, 3, 16, 16)
    assert torch.equal(load(tmp_path / "out")(images), load(exportable)(images))


def test_nothing_to_export(tmp_path):
    with pytest.raises(RunError, match="there is no run folder"):
        export(Export(str(tmp_path / "missing"), "timm", tmp_path / "out"))


def test_on_the_command_line(exportable, tmp_path, vitrail):
    said = vitrail("export", exportable, "--to", "timm", "--out", tmp_path / "out", "--json")
    assert said.status == 0
    assert json.loads(said.out)["max_difference"] == 0
    said = vitrail("export", exportable, "--to", "timm", "--out", tmp_path / "out")
    assert said.status == 2
    assert "is not empty" in said.err
    said = vitrail("export", "--help")
    assert "local-dir:" in said.out
