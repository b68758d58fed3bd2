from __future__ import annotations

import json

import pytest
from PIL import Image

pytest.importorskip("sklearn", reason="the digits come with scikit-learn")


def test_the_demo_trains_measures_draws_and_says_where(vitrail, tmp_path):
    out = tmp_path / "demo"
    words = ("demo", "--out", out, "--epochs", 1, "--device", "cpu", "--precision", "float32")
    said = vitrail(*words, "--json")
    assert said.status == 0
    figures = json.loads(said.out)
    assert figures["images"] == 359  # the held-out fifth
    assert figures["top1"] > 0.15  # after one epoch; a guess is right in a tenth
    for name in ("curves", "confusion", "reliability", "per_class", "attention"):
        assert f"{out / 'plots' / name}.png" in said.err
        with Image.open(out / "plots" / f"{name}.png") as picture:
            picture.verify()
    (out / "old").touch()
    assert vitrail(*words).status == 0  # a run that is there is replaced
    assert not (out / "old").exists()


def test_it_does_not_replace_what_is_no_run(vitrail, tmp_path):
    (tmp_path / "thesis.txt").touch()
    said = vitrail("demo", "--out", tmp_path, "--epochs", 1)
    assert said.status == 2
    assert "is not a run of Vitrail" in said.err
