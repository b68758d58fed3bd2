from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import vitrail as package
from vitrail.errors import SettingError
from vitrail.recipes.predicting.predict import predict
from vitrail.recipes.predicting.settings import Predict

FIXED = {"device": "cpu", "precision": "float32", "workers": 0, "json": True}


def test_every_image_has_its_labels_with_the_most_probable_first(colours, album):
    answers = predict(Predict(colours.folder, (str(album),), **FIXED))
    assert [Path(answer["image"]).relative_to(album).as_posix() for answer in answers] == [
        *(f"blue/0{number}.png" for number in range(3)),
        *(f"red/0{number}.png" for number in range(3)),
        "red/broken.png",
    ]
    for answer in answers[:6]:
        assert answer.keys() == {"image", "predictions", "error"}
        assert answer["error"] is None
        scores = [guess["score"] for guess in answer["predictions"]]
        assert scores == sorted(scores, reverse=True)
        assert len(scores) == 5
        assert answer["predictions"][0]["label"] == Path(answer["image"]).parent.name


def test_a_broken_image_has_its_error_and_the_others_their_answers(colours, album, vitrail):
    said = vitrail("predict", colours.folder, album / "red", "--json", "--device", "cpu")
    answers = json.loads(said.out)
    assert said.status == 0
    assert [bool(answer["error"]) for answer in answers] == [False, False, False, True]
    assert answers[3] == {
        "image": str(album / "red" / "broken.png"),
        "predictions": [],
        "error": "damaged, or none of JPEG, PNG, WEBP, BMP, TIFF, GIF",
    }


def test_if_no_image_can_be_read_the_exit_status_is_2(colours, album, vitrail):
    words = ("predict", colours.folder, album / "red" / "broken.png", album / "missing.png", "--device", "cpu")
    said = vitrail(*words)
    assert (said.status, said.out) == (2, "")
    assert f"{album / 'red' / 'broken.png'}: cannot be read: damaged" in said.err
    assert f"{album / 'missing.png'}: cannot be read: no such file or directory" in said.err
    said = vitrail(*words, "--json")
    assert said.status == 2
    assert [answer["predictions"] for answer in json.loads(said.out)] == [[], []]


def test_for_people_it_is_a_line_an_image(colours, album, vitrail):
    said = vitrail("predict", colours.folder, album / "blue", "--top", 2, "--device", "cpu")
    lines = said.out.splitlines()
    assert len(lines) == 3
    assert lines[0].startswith(f"{album / 'blue' / '00.png'}: blue ")
    assert lines[0].count("%") == 2


def test_predictions_do_not_depend_on_the_batch_and_are_those_of_a_loaded_model(colours, album):
    one = predict(Predict(colours.folder, (str(album),), batch_size=1, **FIXED))
    task = package.load(colours.folder)
    for size in (2, 5, 64):
        other = predict(Predict(colours.folder, (str(album),), batch_size=size, **FIXED))
        for a, b in zip(one, other, strict=True):
            assert [g["label"] for g in a["predictions"]] == [g["label"] for g in b["predictions"]]
            assert [g["score"] for g in a["predictions"]] == pytest.approx(
                [g["score"] for g in b["predictions"]], abs=2e-6
            )
    for answer in one[:-1]:
        guesses = task.predict(answer["image"])
        assert [guess.label for guess in guesses] == [guess["label"] for guess in answer["predictions"]]
        np.testing.assert_allclose(
            [guess.score for guess in guesses], [guess["score"] for guess in answer["predictions"]], atol=2e-6
        )


def test_scores_sum_to_one(colours, album):
    for answer in predict(Predict(colours.folder, (str(album / "blue"),), top=99, **FIXED)):
        assert len(answer["predictions"]) == 6
        assert sum(guess["score"] for guess in answer["predictions"]) == pytest.approx(1, abs=1e-5)


def test_with_many_labels_each_has_its_own_probability(stripes):
    answers = predict(Predict(stripes.folder, (str(stripes.data.parent),), **FIXED))
    sums = [sum(guess["score"] for guess in answer["predictions"]) for answer in answers]
    assert max(sums) - min(sums) > 0.1
    assert len(answers) == 60


@pytest.mark.parametrize("mode", ["RGBA", "P", "CMYK", "L", "1"])
def test_pictures_of_every_kind_are_read(colours, tmp_path, mode):
    file = tmp_path / ("picture.tif" if mode == "CMYK" else "picture.png")
    Image.new("RGB", (40, 23), (210, 40, 40)).convert(mode).save(file)
    (answer,) = predict(Predict(colours.folder, (str(file),), **FIXED))
    assert answer["error"] is None
    assert mode in ("L", "1") or answer["predictions"][0]["label"] == "red"


def test_sixteen_bits_are_read(colours, tmp_path):
    Image.fromarray(np.full((23, 40), 40_000, np.uint16)).save(tmp_path / "deep.png")
    (answer,) = predict(Predict(colours.folder, (str(tmp_path / "deep.png"),), **FIXED))
    assert answer["error"] is None


def test_at_least_one_label_must_be_asked_for(colours, album):
    with pytest.raises(SettingError, match="--top must be at least 1"):
        predict(Predict(colours.folder, (str(album),), top=0))
