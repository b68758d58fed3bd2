"""`vitrail study masking` on small coloured pictures."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from vitrail.recipes.studying import masking as study_masking
from vitrail.recipes.studying.masking import Point, in_words, means

SHORT = ("--epochs", 1, "--workers", 0, "--device", "cpu", "--precision", "float32")


@pytest.fixture(scope="module")
def few(paint, tmp_path_factory):
    return paint(tmp_path_factory.mktemp("few") / "data", ["blue", "red", "yellow"], count=8)


def test_a_run_for_every_share_and_seed(vitrail, few, tmp_path):
    out = tmp_path / "study"
    done = vitrail("study", "masking", few, "--out", out, *SHORT, "--json")
    assert done.status == 0, done.err
    answer = json.loads(done.out)
    assert answer == json.loads((out / "study.json").read_text())
    assert [(point["ratio"], point["run"]) for point in answer["points"]] == [
        (0.25, "0.25-0"),
        (0.5, "0.5-0"),
        (0.75, "0.75-0"),
        (0.9, "0.9-0"),
    ]
    for point in answer["points"]:
        record = json.loads((out / point["run"] / "model.json").read_text())
        assert record["options"]["mask_ratio"] == point["ratio"]
        assert record["options"]["normalise_patches"] is False
        assert point["error"] == json.loads((out / point["run"] / "evaluation.json").read_text())["loss"]
        assert point["probe"] == json.loads((out / point["run"] / "probe.json").read_text())["top1"]
    with Image.open(out / "masking.png") as picture:
        assert picture.format == "PNG"
    weights = out / "0.5-0" / "model.safetensors"
    written = weights.stat().st_mtime_ns
    (out / "0.9-0" / "probe.json").unlink()  # as if it had been stopped there
    done = vitrail("study", "--resume", out, "--json")
    assert json.loads(done.out) == answer
    assert weights.stat().st_mtime_ns == written


def test_without_classes_there_is_no_probe(vitrail, few, tmp_path, monkeypatch):
    monkeypatch.setattr(study_masking, "RATIOS", (0.75,))
    loose = tmp_path / "loose"
    loose.mkdir()
    for number, file in enumerate(sorted(few.glob("*/*.png"))):
        (loose / f"{number}.png").write_bytes(file.read_bytes())
    done = vitrail("study", "masking", loose, "--out", tmp_path / "study", *SHORT)
    assert done.status == 0, done.err
    assert "no classes to probe the features with" in done.err
    points = json.loads((tmp_path / "study" / "study.json").read_text())["points"]
    assert {point["probe"] for point in points} == {None}


def test_the_best_share_is_that_of_the_best_mean_probe():
    points = [
        Point(0.5, 0, 0.1, 0.6, "a"),
        Point(0.75, 0, 0.3, 0.9, "b"),
        Point(0.5, 1, 0.3, 0.8, "c"),
        Point(0.75, 1, 0.5, 0.4, "d"),
    ]
    assert means(points) == [(0.5, pytest.approx(0.2), pytest.approx(0.7)), (0.75, 0.4, pytest.approx(0.65))]
    assert in_words(points) == "the best features, 70.00% in a linear probe, come of hiding 50 %."
