from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from vitrail.errors import DataError, RunError, SettingError
from vitrail.recipes import run
from vitrail.recipes.evaluating.evaluate import evaluate
from vitrail.recipes.evaluating.settings import Evaluate
from vitrail.weights.load import load

KEYS = {"images", "top1", "top5", "macro_f1", "ece", "nll", "per_class", "images_per_second"}
FIXED = {"device": "cpu", "precision": "float32", "workers": 0}


@pytest.fixture
def copy(colours, tmp_path):
    """The run that knows six colours; what is measured may be written into it."""
    return shutil.copytree(colours.folder, tmp_path / "run")


@pytest.fixture
def hard(paint, tmp_path):
    """Pictures whose colours have drifted so far that the model errs on some."""
    return paint(tmp_path / "hard", count=30, noise=60, seed=7)


def logits_of(folder: Path, files: list[Path]) -> NDArray[np.float64]:
    """What the model says, without any of the code that reads or measures data sets."""
    task = load(folder)
    pixels = np.stack([np.asarray(Image.open(file)) for file in files])
    with torch.inference_mode():
        return task(torch.from_numpy(pixels).permute(0, 3, 1, 2)).double().numpy()


def softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def calibration_error(probabilities: NDArray[np.float64], truth: NDArray[np.int64]) -> float:
    """Guo et al. 2017, equation 3, decision by decision."""
    confidences, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == truth
    error = 0.0
    for low in np.arange(15) / 15:
        inside = (confidences > low) & (confidences <= low + 1 / 15)
        if inside.any():
            error += inside.mean() * abs(right[inside].mean() - confidences[inside].mean())
    return error


def test_the_figures_are_those_that_scikit_learn_computes(copy, hard):
    metrics = pytest.importorskip("sklearn.metrics")
    figures = evaluate(Evaluate(copy, str(hard), **FIXED))
    classes = load(copy).classes
    files = sorted(hard.glob("*/*.png"))
    truth = np.array([classes.index(file.parent.name) for file in files])
    logits = logits_of(copy, files)
    probabilities = softmax(logits)
    guesses = logits.argmax(axis=1)
    report = metrics.classification_report(
        truth, guesses, target_names=list(classes), output_dict=True, zero_division=0.0
    )

    assert figures["images"] == 180
    assert 0.3 < figures["top1"] < 1  # it does err, so that what follows means something
    assert figures["top1"] == pytest.approx(metrics.accuracy_score(truth, guesses))
    assert figures["top5"] == pytest.approx(metrics.top_k_accuracy_score(truth, probabilities, k=5))
    assert figures["macro_f1"] == pytest.approx(metrics.f1_score(truth, guesses, average="macro"))
    assert figures["nll"] == pytest.approx(metrics.log_loss(truth, probabilities), rel=1e-5)
    assert figures["ece"] == pytest.approx(calibration_error(probabilities, truth), abs=1e-6)
    assert figures["confusion"] == metrics.confusion_matrix(truth, guesses).tolist()
    for row in figures["per_class"]:
        theirs = report[row["label"]]
        assert row["precision"] == pytest.approx(theirs["precision"])
        assert row["recall"] == pytest.approx(theirs["recall"])
        assert row["f1"] == pytest.approx(theirs["f1-score"])
        assert row["images"] == theirs["support"] == 30


def test_the_temperature_stored_with_the_model_divides_the_logits(copy, hard):
    metrics = pytest.importorskip("sklearn.metrics")
    description = json.loads((copy / "model.json").read_text())
    (copy / "model.json").write_text(json.dumps(description | {"temperature": 0.5}))
    figures = evaluate(Evaluate(copy, str(hard), **FIXED))
    files = sorted(hard.glob("*/*.png"))
    truth = np.array([sorted(hard.iterdir()).index(file.parent) for file in files])
    cooled = softmax(logits_of(copy, files) / 0.5)
    assert figures["temperature"] == 0.5
    assert figures["nll_calibrated"] == pytest.approx(metrics.log_loss(truth, cooled), rel=1e-5)
    assert figures["ece_calibrated"] == pytest.approx(calibration_error(cooled, truth), abs=1e-6)


def test_many_labels_are_measured_as_scikit_learn_does(stripes, tmp_path):
    metrics = pytest.importorskip("sklearn.metrics")
    copy = shutil.copytree(stripes.folder, tmp_path / "run")
    figures = evaluate(Evaluate(copy, str(stripes.data), **FIXED))
    rows = [json.loads(line) for line in stripes.data.read_text().splitlines()]
    truth = np.array([[name in row["labels"] for name in ("blue", "green", "red")] for row in rows])
    logits = logits_of(copy, [stripes.data.parent / row["image"] for row in rows])
    guesses = logits >= 0
    precisions = metrics.average_precision_score(truth, logits, average=None)

    assert figures["images"] == 60
    assert figures["map"] == pytest.approx(precisions.mean())
    assert figures["macro_f1"] == pytest.approx(metrics.f1_score(truth, guesses, average="macro", zero_division=0.0))
    assert figures["micro_f1"] == pytest.approx(metrics.f1_score(truth, guesses, average="micro"))
    assert [row["average_precision"] for row in figures["per_class"]] == pytest.approx(precisions.tolist())
    assert [row["label"] for row in figures["per_class"]] == ["blue", "green", "red"]


def test_single_labels_are_among_the_many(stripes, paint, tmp_path):
    copy = shutil.copytree(stripes.folder, tmp_path / "run")
    figures = evaluate(Evaluate(copy, str(paint(tmp_path / "one", ["red", "blue"], count=5)), **FIXED))
    assert figures["images"] == 10
    assert [row["images"] for row in figures["per_class"]] == [5, 0, 5]


def test_without_data_it_measures_what_training_held_back(colours, copy):
    assert evaluate(Evaluate(copy, **FIXED))["nll"] == colours.figures["nll"]
    validation = evaluate(Evaluate(copy, split="validation", **FIXED))
    assert (validation["split"], validation["images"]) == ("validation", 12)


def test_the_batch_size_changes_nothing(copy, hard):
    one = evaluate(Evaluate(copy, str(hard), batch_size=7, **FIXED))
    other = evaluate(Evaluate(copy, str(hard), batch_size=180, **FIXED))
    assert one["confusion"] == other["confusion"]
    assert one["nll"] == pytest.approx(other["nll"], abs=1e-6)


def test_data_that_number_their_classes_otherwise_are_understood(copy, paint, tmp_path):
    """Here yellow is class 1 of 2, in the model it is class 5 of 6."""
    figures = evaluate(Evaluate(copy, str(paint(tmp_path / "two", ["cyan", "yellow"], count=10)), **FIXED))
    assert figures["top1"] > 0.9
    assert [row["images"] for row in figures["per_class"]] == [0, 10, 0, 0, 0, 10]


def test_a_single_class_can_be_measured(copy, paint, tmp_path):
    figures = evaluate(Evaluate(copy, str(paint(tmp_path / "one", ["red"], count=4)), **FIXED))
    assert (figures["images"], figures["split"]) == (4, "all")


def test_given_splits_are_kept_apart(copy, paint, tmp_path):
    for split, count in (("train", 3), ("test", 5)):
        paint(tmp_path / "parted" / split, ["red", "blue"], count=count)
    figures = evaluate(Evaluate(copy, str(tmp_path / "parted"), **FIXED))
    assert (figures["images"], figures["split"]) == (10, "test")
    with pytest.raises(SettingError, match="has no validation split; it has train, test"):
        evaluate(Evaluate(copy, str(tmp_path / "parted"), split="validation", **FIXED))


def test_columns_of_a_table_can_be_named(copy, paint, tmp_path):
    paint(tmp_path / "data", ["red", "blue"], count=2)
    table = tmp_path / "data" / "table.csv"
    table.write_text("picture,hue\nred/00.png,red\nblue/01.png,blue\n")
    figures = evaluate(Evaluate(copy, str(table), image_column="picture", label_column="hue", **FIXED))
    assert figures["images"] == 2


def test_json_is_one_document_with_the_promised_keys(copy, hard, vitrail, tmp_path):
    before = (copy / "evaluation.json").read_text()
    said = vitrail("evaluate", copy, hard, "--json", "--device", "cpu", "--out", tmp_path / "hard")
    figures = json.loads(said.out)
    assert said.status == 0
    assert figures.keys() >= KEYS
    assert {"label", "precision", "recall", "f1", "images"} == figures["per_class"][0].keys()
    assert figures["images_per_second"] > 0
    assert json.loads((tmp_path / "hard" / "evaluation.json").read_text()) == figures
    assert (copy / "evaluation.json").read_text() == before  # the run keeps the figures on its own data


def test_in_words_it_is_short_and_on_standard_error(copy, vitrail):
    said = vitrail("evaluate", copy, "--device", "cpu", "--precision", "float32")
    assert said.out == ""
    assert "images of test: accuracy " in said.err
    assert "top-5" in said.err
    assert "calibration error" in said.err
    assert f"pictures are in {copy / 'plots'}" in said.err


def test_pictures_are_drawn_anew(copy):
    shutil.rmtree(copy / "plots")
    evaluate(Evaluate(copy, **FIXED))
    assert {path.name for path in (copy / "plots").iterdir()} == {"confusion.png", "per_class.png", "reliability.png"}


def test_a_run_that_cannot_be_written_is_measured_all_the_same(copy, vitrail, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied", "plots")

    monkeypatch.setattr("vitrail.recipes.evaluating.evaluate.draw_report", refuse)
    said = vitrail("evaluate", copy, "--json", "--device", "cpu")
    assert said.status == 0
    assert json.loads(said.out)["split"] == "test"
    assert f"no pictures, for {copy} cannot be written: permission denied" in said.err


def test_a_class_that_the_model_does_not_know_is_named(stripes, paint, tmp_path):
    data = paint(tmp_path / "data", ["red", "yellow"], count=2)
    with pytest.raises(DataError, match=r"does not know the class 'yellow' of .*; it knows: blue, green, red"):
        evaluate(Evaluate(stripes.folder, str(data), **FIXED))


def test_many_labels_cannot_be_asked_of_a_model_that_gives_one(copy, stripes):
    with pytest.raises(DataError, match="several labels an image"):
        evaluate(Evaluate(copy, str(stripes.data), **FIXED))


def test_data_that_have_changed_since_are_not_taken_for_those_held_back(copy):
    record = run.read(copy)
    run.write(copy, record | {"settings": record["settings"] | {"seed": 5}})
    with pytest.raises(RunError, match=r"no longer those .* `vitrail evaluate RUN DATA`"):
        evaluate(Evaluate(copy, **FIXED))


def test_a_model_without_its_record_can_be_measured_on_data_that_are_named(copy, hard):
    (copy / "run.json").unlink()
    assert evaluate(Evaluate(copy, str(hard), **FIXED))["images"] == 180
    with pytest.raises(SettingError, match=r"was not trained here; name the data: vitrail evaluate .* DATA"):
        evaluate(Evaluate(copy, **FIXED))


def test_too_many_unreadable_images_stop_it(copy, hard):
    for file in sorted(hard.glob("red/*.png"))[:20]:
        file.write_bytes(b"")
    settings = Evaluate(copy, str(hard), **FIXED)
    with pytest.raises(DataError, match=r"of 180 images cannot be read, more than --max-unreadable allows"):
        evaluate(settings)
    assert evaluate(replace(settings, max_unreadable=0.2))["images"] == 160
