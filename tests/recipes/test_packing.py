"""`--pack` of predict and evaluate: what each image gives alone at its own proportions, and who is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vitrail import models
from vitrail.data.preprocess import Preprocess
from vitrail.errors import SettingError
from vitrail.export.predictor import Exported
from vitrail.recipes.evaluating.evaluate import evaluate
from vitrail.recipes.evaluating.settings import Evaluate
from vitrail.recipes.packing import packing
from vitrail.recipes.predicting.predict import predict
from vitrail.recipes.predicting.settings import Predict
from vitrail.tasks.classification import Classification
from vitrail.weights.load import load
from vitrail.weights.save import save_description, save_weights

FIXED = {"device": "cpu", "precision": "float32", "workers": 0, "json": True}
SIZES = [(16, 16), (12, 30), (16, 16), (40, 8), (25, 24), (12, 30), (64, 48), (3, 70)]


@pytest.fixture
def album(tmp_path):
    """Pictures of several sizes in two class folders, and a damaged one."""
    rng = np.random.default_rng(0)
    for number, size in enumerate(SIZES):
        folder = tmp_path / "album" / ("red", "blue")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    (tmp_path / "album" / "red" / "broken.png").write_bytes(b"no picture")
    return tmp_path / "album"


def run_of(folder: Path, name: str, **changes: object) -> Path:
    """A run with random weights that knows two classes."""
    torch.manual_seed(0)
    backbone = models.create(name, **changes)
    preprocess = Preprocess((16, 16), channels=backbone.config.channels)
    task = Classification(name, backbone, ("blue", "red"), preprocess)
    for parameter in task.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    folder.mkdir()
    save_description(task, folder)
    save_weights(task.state_dict(), folder)
    return folder


@pytest.fixture
def learned(tmp_path):
    """A ViT with learned positions of 4x4 patches."""
    small = {"width": 24, "depth": 2, "heads": 3, "mlp": 48, "patch_size": 4, "image_size": 16}
    return run_of(tmp_path / "learned", "vit-s16", **small)


def alone(run: Path, file: Path, grid: tuple[int, int]) -> list[float]:
    """The scores of one image that Pillow brought to a grid of patches, by the plain model."""
    task = load(run)
    task.backbone.resampling = "bicubic-antialias"
    height, width = (4 * side for side in grid)
    pixels = np.asarray(Image.open(file).resize((width, height), Image.Resampling.BICUBIC))
    with torch.inference_mode():
        return task.scores(task(torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None]))[0].tolist()


# The grids of at most 16 patches by hand, as SIZES.
GRIDS = [(4, 4), (2, 6), (4, 4), (8, 2), (4, 4), (2, 6), (4, 3), (1, 16)]


def test_scores_are_those_of_each_image_alone(learned, album):
    answers = predict(Predict(str(learned), (str(album),), pack=True, batch_size=3, **FIXED))
    assert [Path(answer["image"]).name for answer in answers] == [
        *(f"{number}.png" for number in (1, 3, 5, 7, 0, 2, 4, 6)),
        "broken.png",
    ]
    assert (answers[-1]["predictions"], bool(answers[-1]["error"])) == ([], True)
    for answer in answers[:-1]:
        scores = {each["label"]: each["score"] for each in answer["predictions"]}
        expected = alone(learned, Path(answer["image"]), GRIDS[int(Path(answer["image"]).stem)])
        assert [scores["blue"], scores["red"]] == pytest.approx(expected, abs=1e-5)


def test_in_bfloat16_as_well(learned, album):
    exact = predict(Predict(str(learned), (str(album),), pack=True, **FIXED))
    rounded = predict(Predict(str(learned), (str(album),), pack=True, **{**FIXED, "precision": "bfloat16"}))
    for one, same in zip(exact[:-1], rounded[:-1], strict=True):
        scores = [{each["label"]: each["score"] for each in answer["predictions"]} for answer in (one, same)]
        assert scores[0] == pytest.approx(scores[1], abs=0.05)


def test_more_patches_where_an_image_has_them(learned, album):
    big = str(album / "red" / "6.png")  # 64 x 48
    (answer,) = predict(Predict(str(learned), (big,), pack=True, pack_tokens=48, **FIXED))
    scores = {each["label"]: each["score"] for each in answer["predictions"]}
    assert [scores["blue"], scores["red"]] == pytest.approx(alone(learned, Path(big), (8, 6)), abs=1e-5)


def test_square_images_of_its_own_size_give_what_they_give_without(colours):
    plain, packed = (
        predict(Predict(str(colours.folder), (str(colours.data),), pack=pack, **FIXED)) for pack in (False, True)
    )
    assert [each["image"] for each in plain] == [each["image"] for each in packed]
    for one, same in zip(plain, packed, strict=True):
        scores = [{each["label"]: each["score"] for each in answer["predictions"]} for answer in (one, same)]
        assert scores[0] == pytest.approx(scores[1], abs=1e-5)


def test_an_evaluation_has_the_figures_of_its_predictions_and_says_that_it_was_packed(learned, album, tmp_path):
    settings = Evaluate(str(learned), str(album), pack=True, batch_size=3, max_unreadable=0.2, out=tmp_path, **FIXED)
    figures = evaluate(settings)
    answers = predict(Predict(str(learned), (str(album),), pack=True, **FIXED))
    right = [answer["predictions"][0]["label"] == Path(answer["image"]).parent.name for answer in answers[:-1]]
    assert figures["images"] == 8
    assert figures["top1"] == pytest.approx(sum(right) / 8)
    assert figures["packed"] == {"tokens": 16}
    assert json.loads((tmp_path / "evaluation.json").read_text())["packed"] == {"tokens": 16}
    assert "packed" not in evaluate(Evaluate(str(learned), str(album), max_unreadable=0.2, **FIXED))


def test_it_is_said_in_words_and_kept_beside_the_models_own_figures(colours, vitrail, tmp_path):
    run = shutil.copytree(colours.folder, tmp_path / "run")
    before = (run / "evaluation.json").read_bytes()
    for flags, folder, patches in ((("--pack",), "packed", 16), (("--pack", "--pack-tokens", 20), "packed-20", 20)):
        said = vitrail("evaluate", run, *flags, "--device", "cpu", "--precision", "float32")
        assert said.status == 0
        assert f"packed, of at most {patches} patches: accuracy" in said.err
        assert json.loads((run / folder / "evaluation.json").read_text())["packed"] == {"tokens": patches}
        assert (run / folder / "plots" / "confusion.png").is_file()
    assert (run / "evaluation.json").read_bytes() == before


@pytest.mark.parametrize("command", ["predict", "evaluate"])
def test_a_model_that_cannot_pack_says_which_can(command, album, vitrail, tmp_path):
    run = run_of(tmp_path / "run", "resnet-18", width=8, image_size=(16, 16))
    said = vitrail(command, run, album, "--pack", "--device", "cpu")
    assert said.status == 2
    assert "cannot be packed for resnet-18; they can for the plain vision transformers: ViT" in said.err


def test_an_exported_file_reads_one_size_only(learned):
    exported = Exported(load(learned).to_json(), lambda images: images)
    with pytest.raises(SettingError, match="reads images of one size only; give --pack the run"):
        packing(Predict("model.onnx", ("a.jpg",), pack=True), exported)


def test_numbers_and_flags_that_make_no_sense(learned, album):
    for settings, words in (
        ({"pack_tokens": 9}, "add --pack"),
        ({"pack": True, "pack_tokens": 0}, "must be at least 1, not 0"),
    ):
        with pytest.raises(SettingError, match=words):
            predict(Predict(str(learned), (str(album),), **settings, **FIXED))
    with pytest.raises(SettingError, match="a probe reads images of one size"):
        evaluate(Evaluate(str(learned), str(album), pack=True, probe="knn", **FIXED))
    with pytest.raises(SettingError, match="--cache keeps images of one size"):
        evaluate(Evaluate(str(learned), str(album), pack=True, cache="auto", **FIXED))


def test_an_objective_has_no_classes_to_say(album, tmp_path, vitrail):
    out = tmp_path / "mae"
    tiny = ("width=32", "depth=2", "heads=2", "mlp=64")
    words = ("--objective", "mae", "--model", "vit-nano", "--config", *tiny, "--steps", 1, "--batch-size", 2)
    (album / "red" / "broken.png").unlink()
    assert vitrail("pretrain", album, *words, "--out", out, "--device", "cpu").status == 0
    said = vitrail("evaluate", out, album, "--pack", "--device", "cpu")
    assert said.status == 2
    assert "--pack is for models that say the classes of images" in said.err
