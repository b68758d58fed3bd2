"""`vitrail evaluate --probe` on small coloured pictures."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from vitrail import models
from vitrail.errors import SettingError
from vitrail.explain.draw_neighbours import draw_neighbours
from vitrail.models.vit.keys import LAYOUTS
from vitrail.recipes.config import config_changes
from vitrail.recipes.evaluating import probe
from vitrail.recipes.evaluating.evaluate import evaluate
from vitrail.recipes.evaluating.settings import Evaluate
from vitrail.recipes.settings import Stated
from vitrail.weights.load import load
from vitrail.weights.rename import to_theirs

FIXED = {"device": "cpu", "precision": "float32", "workers": 0}


@pytest.fixture(scope="module")
def parted(paint, tmp_path_factory):
    """Two colours of the six, whose pictures drift, in given splits."""
    folder = tmp_path_factory.mktemp("parted")
    for seed, (split, count) in enumerate({"train": 12, "validation": 6, "test": 15}.items()):
        paint(folder / split, ["green", "yellow"], count=count, noise=60, seed=seed)
    return folder


def by_hand(task, folder):
    """Features and classes without any of the code that reads or measures data sets."""
    files = sorted(folder.glob("*/*.png"))
    pixels = np.stack([np.asarray(Image.open(file)) for file in files])
    with torch.inference_mode():
        features = task.features(torch.from_numpy(pixels).permute(0, 3, 1, 2)).pooled
    return features.double().numpy(), np.array([file.parent.name for file in files])


@pytest.mark.parametrize("probe", ["linear", "knn"])
def test_colours_that_are_known_are_told_apart_anew(colours, parted, probe):
    figures = evaluate(Evaluate(str(colours.folder), str(parted), probe=probe, **FIXED))
    assert (figures["images"], figures["split"], figures["probe"], figures["model"]) == (30, "test", probe, "vit-nano")
    assert [row["label"] for row in figures["per_class"]] == ["green", "yellow"]
    assert 0.6 < figures["top1"] < 1  # pictures that have drifted so far leave something to err on


def test_the_neighbours_are_those_of_scikit_learn(colours, parted):
    neighbors = pytest.importorskip("sklearn.neighbors")
    task = load(colours.folder)
    theirs = neighbors.KNeighborsClassifier(
        20, metric="cosine", algorithm="brute", weights=lambda distance: np.exp((1 - distance) / 0.07)
    )
    theirs.fit(*by_hand(task, parted / "train"))
    figures = evaluate(Evaluate(str(colours.folder), str(parted), probe="knn", **FIXED))
    assert figures["top1"] == pytest.approx(theirs.score(*by_hand(task, parted / "test")))


def test_the_split_can_be_named(colours, parted):
    figures = evaluate(Evaluate(str(colours.folder), str(parted), probe="knn", split="validation", **FIXED))
    assert (figures["images"], figures["split"]) == (12, "validation")
    with pytest.raises(SettingError, match=r"measures on another split; .* has train, validation, test"):
        evaluate(Evaluate(str(colours.folder), str(parted), probe="knn", split="train", **FIXED))


def test_weights_without_a_classifier_are_enough(parted, tmp_path):
    """A file in timm's names without a head, as self-supervised weights come; even random features know colours."""
    config = ("width=32", "depth=2", "heads=2", "mlp=64", "patch_size=4", "image_size=16,16")
    torch.manual_seed(0)
    backbone = models.create("vit-ti16", **config_changes("vit-ti16", config))
    save_file(to_theirs(backbone.state_dict(), LAYOUTS["timm"], backbone.config), tmp_path / "backbone.safetensors")
    stated = Stated(layout="timm", model="vit-ti16", config=config)
    figures = evaluate(
        Evaluate(str(tmp_path / "backbone.safetensors"), str(parted), probe="linear", stated=stated, **FIXED)
    )
    assert figures["images"] == 30
    assert figures["top1"] > 0.6


def test_grey_images_are_given_to_a_model_of_colours_in_its_own_way(colours, tmp_path):
    for split, count in {"train": 8, "validation": 4, "test": 4}.items():
        for name, shade in {"dark": 40, "light": 210}.items():
            (tmp_path / split / name).mkdir(parents=True)
            for number in range(count):
                Image.new("L", (16, 16), shade + number).save(tmp_path / split / name / f"{number}.png")
    figures = evaluate(Evaluate(str(colours.folder), str(tmp_path), probe="knn", **FIXED))
    assert figures["top1"] == 1


def test_json_is_one_document_and_out_keeps_it(colours, parted, vitrail, tmp_path):
    copy = shutil.copytree(colours.folder, tmp_path / "run")
    before = (copy / "evaluation.json").read_bytes()
    said = vitrail("evaluate", copy, parted, "--probe", "knn", "--json", "--device", "cpu", "--out", tmp_path / "out")
    assert said.status == 0
    figures = json.loads(said.out)
    assert figures == json.loads((tmp_path / "out" / "probe.json").read_text())
    assert (copy / "evaluation.json").read_bytes() == before


def test_the_nearest_images_are_drawn(colours, parted, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(probe, "draw_neighbours", lambda rows: drawn.extend(rows) or draw_neighbours(rows))
    evaluate(Evaluate(str(colours.folder), str(parted), probe="knn", out=tmp_path, **FIXED))
    with Image.open(tmp_path / "plots" / "neighbours.png") as picture:
        assert min(picture.size) > 300
    task = load(colours.folder)
    train, classes = by_hand(task, parted / "train")
    queries, _ = by_hand(task, parted / "test")
    files = sorted((parted / "train").glob("*/*.png"))
    assert len(drawn) == 8
    unit = train / np.linalg.norm(train, axis=1, keepdims=True)
    similarity = unit @ queries[0] / np.linalg.norm(queries[0])
    for near, number in zip(drawn[0][2], np.argsort(-similarity)[:6], strict=True):
        np.testing.assert_array_equal(near.image, np.asarray(Image.open(files[number])))
        assert near.label == classes[number]
        assert near.similarity == pytest.approx(similarity[number], abs=1e-5)


def test_in_words_it_is_one_line(colours, parted, vitrail):
    said = vitrail("evaluate", colours.folder, parted, "--probe", "linear", "--device", "cpu")
    assert said.out == ""
    assert "linear probe of vit-nano on 30 images of test: " in said.err


def test_mistakes_are_answered_in_one_sentence(colours, stripes):
    with pytest.raises(SettingError, match="vitrail evaluate RUN DATA --probe knn"):
        evaluate(Evaluate(str(colours.folder), probe="knn", **FIXED))
    with pytest.raises(SettingError, match="needs one label an image"):
        evaluate(Evaluate(str(colours.folder), str(stripes.data), probe="knn", **FIXED))
