"""`--merge R`: what the commands say and keep of a model that merges tokens, and which models cannot."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from vitrail.errors import SettingError
from vitrail.recipes.evaluating.evaluate import evaluate
from vitrail.recipes.evaluating.settings import Evaluate
from vitrail.recipes.exporting.export import export
from vitrail.recipes.exporting.settings import Export
from vitrail.recipes.opened import open_model
from vitrail.recipes.predicting.predict import predict
from vitrail.recipes.predicting.settings import Predict
from vitrail.recipes.pretraining.pretrain import pretrain
from vitrail.recipes.pretraining.settings import Pretrain
from vitrail.recipes.settings import UNSTATED
from vitrail.recipes.training.train import train
from vitrail.weights.load import load

FIXED = {"device": "cpu", "precision": "float32", "workers": 0, "json": True}


@pytest.fixture
def copy(colours, tmp_path):
    return shutil.copytree(colours.folder, tmp_path / "run")


def test_figures_say_so_and_have_a_folder_of_their_own(copy, vitrail):
    whole = json.dumps(evaluate(Evaluate(str(copy), **FIXED)))
    before = (copy / "evaluation.json").read_bytes()
    figures = evaluate(Evaluate(str(copy), merge=5, **FIXED))
    assert figures["merge"] == 5
    assert "merge" not in json.loads(whole)
    assert figures["nll"] != json.loads(whole)["nll"]
    assert (copy / "evaluation.json").read_bytes() == before
    assert json.loads((copy / "merge-5" / "evaluation.json").read_text())["nll"] == figures["nll"]
    assert (copy / "merge-5" / "plots" / "confusion.png").is_file()
    said = vitrail("evaluate", copy, "--merge", 5, "--device", "cpu")
    assert "5 pairs of tokens merged a block: accuracy" in said.err


def test_no_pairs_are_no_merging(copy, colours):
    answers = [predict(Predict(str(copy), (str(colours.data),), merge=merge, **FIXED)) for merge in (0, 5)]
    assert answers[0] == predict(Predict(str(copy), (str(colours.data),), **FIXED))
    assert answers[0] != answers[1]


def test_predictions_are_those_of_a_loaded_model_and_do_not_depend_on_the_batch(copy, colours):
    task = load(copy)
    task.backbone.merge = 5
    files = sorted((colours.data / "red").iterdir())
    for size in (1, 7):
        said = predict(Predict(str(copy), tuple(map(str, files)), merge=5, batch_size=size, **FIXED))
        for file, answer in zip(files, said, strict=True):
            expected = task.predict(np.asarray(Image.open(file)))
            assert [guess["label"] for guess in answer["predictions"]] == [guess.label for guess in expected]
            scores = [guess["score"] for guess in answer["predictions"]]
            assert scores == pytest.approx([guess.score for guess in expected], abs=2e-6)


def test_a_merging_model_goes_out_as_it_is(colours, tmp_path, vitrail):
    path = tmp_path / "colours.onnx"
    answer = export(Export(str(colours.folder), "onnx", path, merge=5))
    assert (answer["merge"], answer["passed"]) == (5, True)
    expected = predict(Predict(str(colours.folder), (str(colours.data),), merge=5, **FIXED))
    for row, other in zip(predict(Predict(str(path), (str(colours.data),), **FIXED)), expected, strict=True):
        assert [guess["label"] for guess in row["predictions"]] == [guess["label"] for guess in other["predictions"]]
    said = vitrail("predict", path, colours.data, "--merge", 4)
    assert (said.status, said.err.count("cannot be changed; leave such flags out")) == (2, 1)


def test_a_program_merges_too(colours, tmp_path):
    answer = export(Export(str(colours.folder), "program", tmp_path / "colours.pt2", merge=5))
    assert answer["max_difference"] <= 1e-5
    program = torch.export.load(tmp_path / "colours.pt2", extra_files=(files := {"vitrail.json": ""}))
    assert json.loads(files["vitrail.json"])["merge"] == 5
    task = load(colours.folder)
    task.backbone.merge = 5
    images = torch.randint(0, 256, (5, 3, *task.preprocess.size), dtype=torch.uint8)
    with torch.inference_mode():
        torch.testing.assert_close(program.module()(images), task(images), atol=1e-5, rtol=1e-5)


def test_other_models_say_which_can(colours, paint, tiny, tmp_path):
    train(tiny(colours.data, tmp_path / "lenet", model="lenet-5-relu", config=()))
    pretrain(Pretrain(str(colours.data), "mae", model="vit-nano", steps=1, batch_size=4, out=tmp_path / "mae",
                      config=("width=32", "depth=1", "heads=2", "mlp=64"), device="cpu"))  # fmt: skip
    for run, what in (("lenet", "lenet-5-relu for classification"), ("mae", "vit-nano for mae")):
        with pytest.raises(SettingError) as raised:
            open_model(str(tmp_path / run), UNSTATED, merge=4)
        expected = (
            f"--merge is for classifiers of images on deit, dinov3, rope-vit or vit, and this is {what}; leave it out."
        )
        assert str(raised.value) == expected


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--merge", "-1"), "--merge must be a number from 0 upwards, not -1."),
        (("--probe", "knn", "--merge", "4"), "--probe measures the features of the whole model; leave --merge out."),
    ],
)
def test_settings_that_make_no_sense(colours, vitrail, words, sentence):
    said = vitrail("evaluate", colours.folder, colours.data, *words)
    assert (said.status, said.out) == (2, "")
    assert sentence in said.err


def test_which_patches_became_one_is_drawn(colours, tmp_path, vitrail):
    words = ("explain", colours.folder, colours.data / "red", "--method", "merged", "--out", tmp_path / "merged.png")
    said = vitrail(*words, "--merge", 3, "--device", "cpu", "--json")
    assert said.status == 0
    answers = json.loads(said.out)
    assert len(answers) == 16
    assert {answer["tokens"] for answer in answers} == {16 - 2 * 3}
    assert np.array(answers[0]["groups"]).shape == (4, 4)
    with Image.open(tmp_path / "merged.png") as drawn:
        assert drawn.width > 300
    said = vitrail(*words)
    assert (said.status, said.err.count("give it, such as --merge 16.")) == (2, 1)
    said = vitrail(*words[:3], "--merge", 4)
    assert (said.status, said.err.count("--merge is for --method merged; --method attention has none.")) == (2, 1)
