"""A run goes out as a file that runs elsewhere, or as a folder of another library's, and is checked on the way."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
import transformers

from vitrail.errors import CheckpointError, RunError, SettingError
from vitrail.recipes.evaluating.evaluate import evaluate
from vitrail.recipes.evaluating.settings import Evaluate
from vitrail.recipes.exporting.export import export
from vitrail.recipes.exporting.settings import Export
from vitrail.recipes.pretraining.pretrain import pretrain
from vitrail.recipes.pretraining.settings import Pretrain
from vitrail.recipes.settings import Stated
from vitrail.recipes.training.train import train
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


# --- files


@pytest.fixture(scope="module")
def as_onnx(colours, tmp_path_factory):
    """A trained run as an ONNX file, and the answer of the export."""
    path = tmp_path_factory.mktemp("onnx") / "colours.onnx"
    return path, export(Export(str(colours.folder), "onnx", path, str(colours.data)))


def test_the_report_of_a_file(colours, as_onnx):
    path, answer = as_onnx
    assert json.loads((path.parent / "colours.onnx.parity.json").read_text()) == answer
    assert {file.name for file in path.parent.iterdir()} == {"colours.onnx", "colours.onnx.parity.json"}
    assert answer["passed"]
    assert answer["max_difference"] <= 1e-4
    assert answer["agreement"] == 1
    assert answer["images"] == f"120 images of {colours.data}"
    assert answer["bytes"]["after"] == path.stat().st_size
    assert answer["bytes"]["before"] == pytest.approx((colours.folder / "model.safetensors").stat().st_size, rel=0.1)
    measured = evaluate(Evaluate(str(colours.folder), str(colours.data), device="cpu", precision="float32"))
    assert answer["scores"] == {"accuracy": {"before": measured["top1"], "after": measured["top1"]}}
    assert set(answer["milliseconds"]) == {"1", "32"}
    assert answer["versions"]["opset"] == 18


def test_a_file_is_a_model_for_predict_and_evaluate(colours, as_onnx, vitrail):
    path, _ = as_onnx
    words = (colours.data / "red", colours.data / "blue", "--json", "--device", "cpu", "--precision", "float32")
    ours, theirs = (json.loads(vitrail("predict", model, *words).out) for model in (colours.folder, path))
    assert len(ours) == 40
    for mine, other in zip(ours, theirs, strict=True):
        assert mine["image"] == other["image"]
        assert [each["label"] for each in mine["predictions"]] == [each["label"] for each in other["predictions"]]
        scores = [[each["score"] for each in answer["predictions"]] for answer in (mine, other)]
        assert scores[0] == pytest.approx(scores[1], abs=1e-5)
    words = (colours.data, "--json", "--device", "cpu", "--precision", "float32")
    ours, theirs = (json.loads(vitrail("evaluate", model, *words).out) for model in (colours.folder, path))
    for key in ("top1", "confusion", "split", "temperature"):
        assert ours[key] == theirs[key]
    assert ours["nll_calibrated"] == pytest.approx(theirs["nll_calibrated"], abs=1e-5)


def test_what_else_a_file_is_not(as_onnx, vitrail):
    path, _ = as_onnx
    picture = "nothing.png"
    for words in (("explain", path, picture), ("export", path, "--to", "timm"), ("train", "x", "--weights", path)):
        said = vitrail(*words)
        assert said.status == 2
        assert "Traceback" not in said.err
    assert "is an exported model, which predict, evaluate and serve take" in vitrail("explain", path, picture).err
    said = vitrail("predict", path, picture, "--labels", "a,b")
    assert said.status == 2
    assert "says itself what it is" in said.err
    said = vitrail("evaluate", path)
    assert said.status == 2
    assert "name the data" in said.err


def test_a_program(colours, tmp_path, vitrail):
    said = vitrail("export", colours.folder, "--to", "program", "--out", tmp_path / "colours.pt2")
    assert said.status == 0
    assert "agreement of labels" in said.out
    answer = json.loads((tmp_path / "colours.pt2.parity.json").read_text())
    assert answer["images"] == "64 drawn scenes"
    assert answer["scores"] is None
    assert answer["max_difference"] <= 1e-5
    said = vitrail("predict", tmp_path / "colours.pt2", colours.data / "red")
    assert said.status == 2
    assert "can run code that is in it" in said.err


def test_many_labels_with_8_bits(stripes, tmp_path):
    answer = export(Export(str(stripes.folder), "onnx", tmp_path / "stripes.onnx", str(stripes.data), int8=True))
    assert answer["int8"]
    assert answer["tolerance"] is None
    assert 0.95 <= answer["agreement"] <= 1
    assert answer["scores"]["mAP"]["after"] == pytest.approx(answer["scores"]["mAP"]["before"], abs=0.1)
    assert answer["bytes"]["after"] == (tmp_path / "stripes.onnx").stat().st_size


def test_what_is_too_different_is_a_failure(colours, tmp_path, vitrail, monkeypatch):
    monkeypatch.setattr("vitrail.export.parity.AGREEMENT", 1.01)
    said = vitrail("export", colours.folder, "--to", "onnx", "--int8", "--out", tmp_path / "colours.onnx", "--json")
    assert said.status == 1
    assert "of the labels stay the same, below 101%; export without --int8." in said.err
    assert json.loads(said.out)["passed"] is False
    assert json.loads((tmp_path / "colours.onnx.parity.json").read_text()) == json.loads(said.out)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--to", "onnx", "--out", "model.pt2"), "a file of --to onnx ends in .onnx; call it --out model.onnx."),
        (("--to", "program", "--int8"), "--int8 is for --to onnx; leave it out, or export to ONNX."),
        (("--to", "timm", "--int8"), "--int8, --merge, DATA are for --to onnx and program, not timm; leave them out."),
        (("photos", "--to", "timm"), "--int8, --merge, DATA are for --to onnx and program, not timm; leave them out."),
    ],
)
def test_settings_that_make_no_sense(words, sentence, colours, vitrail):
    said = vitrail("export", colours.folder, *words)
    assert said.status == 2
    assert sentence in said.err


def test_a_file_that_is_there(colours, as_onnx, vitrail):
    path, _ = as_onnx
    before = path.read_bytes()
    said = vitrail("export", colours.folder, "--to", "onnx", "--out", path)
    assert said.status == 2
    assert "is there already; choose another --out" in said.err
    assert path.read_bytes() == before


def test_the_file_lies_beside_the_run(colours, tmp_path, monkeypatch):
    monkeypatch.setattr("vitrail.export.parity.RUNS", (1, 1))
    run = shutil.copytree(colours.folder, tmp_path / "run")
    assert export(Export(str(run), "program"))["file"] == f"{run}.pt2"


def test_a_model_of_text_is_not_exported(tmp_path, vitrail):
    (tmp_path / "book.txt").write_text("It was the best of times, it was the worst of times.\n" * 40)
    shape = ("width=16", "depth=1", "heads=2", "mlp=32", "context=16")
    pretrain(
        Pretrain(str(tmp_path / "book.txt"), "next-token", out=tmp_path / "run", config=shape, steps=2, device="cpu")
    )
    said = vitrail("export", tmp_path / "run", "--to", "onnx")
    assert said.status == 2
    assert "is a model of text, and only classifiers of images are exported" in said.err
