"""`--cache` changes no result, and `vitrail cache` shows and removes what it keeps."""

from __future__ import annotations

import json
from pathlib import Path

import PIL.Image
import pytest

from vitrail.data import cache as kept
from vitrail.data.shapes import Shapes
from vitrail.errors import DataError, SettingError
from vitrail.recipes.cache import Cache, cache
from vitrail.recipes.evaluating.evaluate import evaluate
from vitrail.recipes.evaluating.settings import Evaluate
from vitrail.recipes.pretraining.pretrain import pretrain
from vitrail.recipes.pretraining.settings import Pretrain
from vitrail.recipes.training.settings import Train
from vitrail.recipes.training.train import train

pytestmark = [
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
    pytest.mark.usefixtures("own_cache"),
]
QUICK = {"model": "vit-nano", "weights": "none", "image_size": 16, "epochs": 1, "precision": "float32", "workers": 0}


@pytest.fixture
def photos(tmp_path: Path) -> str:
    for number in range(24):
        file = tmp_path / "photos" / "ab"[number % 2] / f"{number}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.fromarray(Shapes(24, size=80).sample(number).image).save(file)
    return str(tmp_path / "photos")


def test_the_same_model_with_and_without(photos: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = {}
    for name, size in (("plain", "none"), ("filled", "auto"), ("again", "10MB")):
        train(Train(photos, out=tmp_path / name, cache=size, **QUICK))  # type: ignore[arg-type]
        runs[name] = (tmp_path / name / "model.safetensors").read_bytes()
    assert runs["plain"] == runs["filled"] == runs["again"]
    assert json.loads((tmp_path / "filled" / "run.json").read_text())["versions"]["jpeg"] in ("Pillow", "simplejpeg")
    figures = [evaluate(Evaluate(str(tmp_path / "plain"), cache=size)) for size in ("none", "10MB")]
    assert figures[0]["nll"] == figures[1]["nll"]
    capsys.readouterr()
    (found,) = cache(Cache())
    assert found["data"] == photos
    assert found["images"] == 22  # all but two of train, which make no whole batch in the first epoch
    shown = capsys.readouterr()
    assert "22" in shown.out
    assert "remove it with `vitrail cache --clear`" in shown.err
    assert cache(Cache(photos, clear=True, json=True)) == [found]
    assert not list((tmp_path / "cache").iterdir())
    assert cache(Cache(json=True)) == []
    with pytest.raises(DataError, match="nothing is kept of"):
        cache(Cache(photos))


def test_a_run_that_goes_on_keeps_its_cache_and_may_have_another(
    photos: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(Train(photos, out=tmp_path / "run", cache="10MB", **QUICK))  # type: ignore[arg-type]
    for cache_now, limit in (("none", "9.5 MiB"), ("5MB", "4.8 MiB")):
        kept._open.clear()
        capsys.readouterr()
        train(Train(resume=tmp_path / "run", cache=cache_now))
        said = capsys.readouterr().err
        assert f"of at most {limit}" in said
        assert said.count("JPEGs were decoded by another and now are by") == (cache_now != "none")
        write_decoder(tmp_path / "run" / "run.json", "another")


def write_decoder(file: Path, name: str) -> None:
    record = json.loads(file.read_text())
    record["versions"]["jpeg"] = name
    file.write_text(json.dumps(record))


def test_pretraining_is_the_same_with_and_without(photos: str, tmp_path: Path) -> None:
    runs = []
    for name, size in (("plain", "none"), ("filled", "10MB")):
        pretrain(
            Pretrain(photos, objective="dino", model="vit-nano", image_size=16, steps=1, batch_size=4, workers=0,
                     out=tmp_path / name, cache=size, precision="float32")
        )  # fmt: skip
        runs.append((tmp_path / name / "model.safetensors").read_bytes())
    assert runs[0] == runs[1]


def test_what_makes_no_sense_is_refused_before_anything_is_made(photos: str, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="--cache must be"):
        train(Train(photos, out=tmp_path / "run", cache="large", **QUICK))  # type: ignore[arg-type]
    with pytest.raises(SettingError, match="--cache keeps images"):
        pretrain(Pretrain("book.txt", objective="next-token", cache="auto"))
    with pytest.raises(SettingError, match="--cache is for images"):
        train(Train("reviews.csv", task="text-classification", cache="auto"))
    assert not (tmp_path / "run").exists()
