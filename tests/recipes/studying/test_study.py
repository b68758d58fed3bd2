"""Studies: many small runs that differ in one thing, begun, stopped and gone on with."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from vitrail.errors import Interrupted, RunError, SettingError
from vitrail.metrics.power_law import PowerLaw
from vitrail.recipes import run
from vitrail.recipes.costs import forward_flops
from vitrail.recipes.evaluating.evaluate import evaluate
from vitrail.recipes.evaluating.settings import Evaluate
from vitrail.recipes.studying import masking as study_masking
from vitrail.recipes.studying import scaling as study_scaling
from vitrail.recipes.studying.scaling import equal_networks, in_words, left
from vitrail.recipes.studying.settings import Study
from vitrail.recipes.studying.study import study
from vitrail.recipes.training.settings import Train
from vitrail.recipes.training.train import train

WORDS = ("--epochs", 1, "--image-size", 32, "--workers", 0, "--device", "cpu", "--precision", "float32")


def of(data: Path, out: Path, **others: Any) -> Study:
    fixed: dict[str, Any] = {"epochs": 1, "image_size": 32, "workers": 0, "device": "cpu", "precision": "float32"}
    return Study("data-scaling", str(data), out, **fixed | others)


@pytest.fixture(scope="module")
def colours_of_six(tmp_path_factory: pytest.TempPathFactory, paint) -> Path:
    return paint(tmp_path_factory.mktemp("study") / "data", count=10, noise=40)


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch) -> list[Train]:
    """Runs that take no time: their accuracy follows a law of the share, that of the ResNet another one."""
    settings_of: list[Train] = []

    def pretend(settings: Train) -> dict[str, Any]:
        settings_of.append(settings)
        assert settings.out is not None
        run.start(settings.out, {"settings": {}, "choice": {}, "data": {}}, overwrite=False)
        score = 1 - (0.4 if settings.model == "bit-r50x1" else 0.6) * settings.share**-0.2 - settings.seed / 1000
        (settings.out / "evaluation.json").write_text(json.dumps({"top1": score}))
        return {"top1": score}

    monkeypatch.setattr(study_scaling, "train", pretend)
    return settings_of


# ------------------------------------------------------------------------------------------------------ equal networks


@pytest.mark.parametrize(
    ("size", "image_size", "channels"), [("small", 32, 3), ("small", 64, 1), ("small", 128, 3), ("large", 112, 3)]
)
def test_both_networks_cost_the_same(size: str, image_size: int, channels: int) -> None:
    networks = equal_networks(size, image_size, channels)
    costs = [
        forward_flops(network.model, **network.changes, image_size=(image_size, image_size), channels=channels)
        for network in networks.values()
    ]
    assert [network.flops for network in networks.values()] == costs
    assert max(costs) / min(costs) <= 1.05
    assert networks["ViT"].changes["width"] % networks["ViT"].changes["heads"] == 0
    assert (networks["BiT-ResNet"].changes == {}) is (size == "large")  # which is the published BiT-R50x1


# ----------------------------------------------------------------------------------------------------- a share of data


def test_a_run_on_a_share_is_measured_and_gone_on_with_like_any_other(tiny, paint, tmp_path: Path) -> None:
    data = paint(tmp_path / "data", ["red", "blue"], count=20)
    settings = tiny(data, tmp_path / "run", share=0.25, workers=0)
    figures = train(settings)
    record = run.read(tmp_path / "run")
    assert record["settings"]["share"] == 0.25
    assert record["data"]["images"]["train"] == 28  # an epoch is as long
    assert evaluate(Evaluate(str(tmp_path / "run"), workers=0))["top1"] == figures["top1"]
    assert train(Train(resume=tmp_path / "run", workers=0))["top1"] == figures["top1"]
    with pytest.raises(SettingError, match="leave out --share"):
        train(Train(resume=tmp_path / "run", share=0.5))
    for share in (0.0, 1.5, float("nan")):
        with pytest.raises(SettingError, match="--share must be above 0 and at most 1"):
            train(replace(settings, share=share, overwrite=True))


# -------------------------------------------------------------------------------------------------------- data-scaling


def test_a_study_from_the_command_line(vitrail, colours_of_six: Path, tmp_path: Path, pretended: list[Train]) -> None:
    out = tmp_path / "study"
    words = ("--shares", 1, 0.25, 0.5, "--seeds", 0, 3, *WORDS, "--out", out)
    said = vitrail("study", "data-scaling", colours_of_six, *words, "--json")
    assert said.status == 0, said.err
    answer = json.loads(said.out)
    assert answer == json.loads((out / "study.json").read_text())
    assert {(p["share"], p["images"]) for p in answer["points"]} == {(0.25, 12), (0.5, 24), (1.0, 42)}
    assert {p["seed"] for p in answer["points"]} == {0, 3}
    assert len(answer["points"]) == len(pretended) == 12
    for point, settings in zip(answer["points"], pretended, strict=True):
        assert settings.out == out / point["run"]
        assert (settings.share, settings.seed) == (point["share"], point["seed"])
    fixed = ("data", "epochs", "batch_size", "learning_rate", "image_size", "optimizer", "augment", "weights")
    assert len({tuple(getattr(settings, name) for name in fixed) for settings in pretended}) == 1
    for name, factor in (("ViT", 0.6), ("BiT-ResNet", 0.4)):
        law = PowerLaw(**answer["laws"][name])
        assert law(12) == pytest.approx(factor * 0.25**-0.2, abs=0.01)  # as was pretended
    with Image.open(out / "study.png") as picture:
        picture.verify()
    assert "study: run 12 of 12: BiT-ResNet on 42 images, seed 3" in said.err
    again = vitrail("study", "data-scaling", colours_of_six, *words)
    assert (again.status, again.out) == (2, "")
    assert "already holds a run; go on with --resume" in again.err
    seen = vitrail("study", "--resume", out)
    assert (seen.status, len(pretended)) == (0, 12)  # nothing was trained again
    assert "59.85% ± 0.15%" in seen.out
    assert "The fitted curves do not meet up to 4,200 images." in seen.err


def test_a_stopped_study_goes_on_to_the_same_end(
    colours_of_six: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = study(of(colours_of_six, tmp_path / "whole", shares=(0.5,)))
    trained: list[str] = []

    def stopping(settings: Train) -> dict[str, Any]:
        trained.append((settings.out or settings.resume).name)
        if len(trained) == 2:
            raise Interrupted("stopped after step 3 of 9; all is saved.", 2)
        return train(settings)

    monkeypatch.setattr(study_scaling, "train", stopping)
    with pytest.raises(Interrupted, match=f"go on with: vitrail study --resume {tmp_path / 'part'}") as stopped:
        study(of(colours_of_six, tmp_path / "part", shares=(0.5,)))
    assert stopped.value.exit_status == 130
    assert len(json.loads((tmp_path / "part" / "study.json").read_text())["points"]) == 1
    (tmp_path / "part" / "ViT-0.5-0" / "evaluation.json").unlink()  # as if it had been killed at its very end
    assert study(Study(resume=tmp_path / "part", workers=0)) == whole
    assert trained[2:] == ["ViT-0.5-0", "BiT-ResNet-0.5-0"]
    assert {p["score"] for p in whole["points"]} == {
        json.loads((tmp_path / "part" / p["run"] / "evaluation.json").read_text())["top1"] for p in whole["points"]
    }


def test_a_study_of_changed_data_does_not_go_on(paint, tmp_path: Path, pretended: list[Train]) -> None:
    data = paint(tmp_path / "data", ["red", "blue"], count=10)
    study(of(data, tmp_path / "study", shares=(1.0,)))
    (data / "red" / "00.png").unlink()
    with pytest.raises(RunError, match="no longer those"):
        study(Study(resume=tmp_path / "study"))
    assert (tmp_path / "study" / "ViT-1-0").is_dir()


def test_many_labels_have_another_score(stripes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study_scaling, "train", lambda settings: {"map": 1.0})
    answer = study(of(stripes.data, tmp_path / "study", shares=(1.0,)))
    assert answer["score"] == "mean average precision"
    assert [point["score"] for point in answer["points"]] == [1.0, 1.0]  # no error at all has no logarithm
    assert answer["laws"] == {"ViT": None, "BiT-ResNet": None}
    assert in_words(answer) == "too few shares for a law: three are needed."


@pytest.mark.parametrize(
    ("laws", "meeting", "words"),
    [
        (["ViT", "BiT"], None, "The fitted curves do not meet up to 90,000 images."),
        (["ViT", "BiT"], 1500, "The fitted curves meet at about 1,500 images."),
        (["ViT", "BiT"], 25000, "The fitted curves meet at about 25,000 images, far beyond the data."),
    ],
)
def test_where_the_curves_meet_is_said(laws: list[str], meeting: int | None, words: str) -> None:
    law = {"a": 3.0, "b": 0.5, "c": 0.0}
    said = in_words({"laws": dict.fromkeys(laws, law), "meet": meeting, "images": 900})
    assert said == f"ViT: error = 3 · n^-0.5 of n images\nBiT: error = 3 · n^-0.5 of n images\n{words}"


def test_the_time_left_is_that_of_runs_that_were_trained() -> None:
    assert left([], [1, 2]) == ""
    assert left([0.1, 0.2], [1, 2, 3]) == ""
    assert left([0.1, 120.0], [1, 2, 3, 4, 5]) == "; about 6 min left"


# ----------------------------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ((), "no data was given: `vitrail study KIND DATA`"),
        (("data-scaling", "DATA", "--seeds", 1, 1), "--seeds must be different numbers from 0 upwards"),
        (("data-scaling", "DATA", "--seeds", -1), "--seeds must be different numbers from 0 upwards"),
        (("data-scaling", "DATA", "--shares", 0.5, 1.2), "--shares must be different numbers above 0 and at most 1"),
        (("data-scaling", "DATA", "--shares", "nan"), "--shares must be different numbers above 0 and at most 1"),
        (("data-scaling", "DATA", "--epochs", 0), "--epochs must be at least 1"),
        (("data-scaling", "DATA", "--image-size", 30), "--image-size must be a multiple of 8"),
        (("data-scaling", "DATA", "--batch-size", 50), "the batch size 50 is larger than the 42 images"),
        (("data-scaling", "nowhere"), "nowhere does not exist"),
        (("--resume", "nowhere"), "there is no run folder nowhere"),
    ],
)
def test_a_mistake_is_one_sentence_and_leaves_nothing(
    vitrail, colours_of_six: Path, tmp_path: Path, words: tuple[object, ...], sentence: str
) -> None:
    out = ("--out", tmp_path / "out") if "--resume" not in words else ()
    said = vitrail("study", *(colours_of_six if word == "DATA" else word for word in words), *out)
    assert said.status == 2
    assert sentence in said.err
    assert "Traceback" not in said.err
    assert not (tmp_path / "out").exists()


def test_no_study_under_torchrun(monkeypatch: pytest.MonkeyPatch, colours_of_six: Path, tmp_path: Path) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    with pytest.raises(SettingError, match="start it without torchrun"):
        study(of(colours_of_six, tmp_path / "out"))


def test_other_settings_are_refused_when_it_goes_on(
    vitrail, colours_of_six: Path, tmp_path: Path, pretended: list[Train]
) -> None:
    study(of(colours_of_six, tmp_path / "study", shares=(1.0,)))
    said = vitrail("study", "--resume", tmp_path / "study", "--shares", 0.5, 1)
    assert said.status == 2
    assert "leave out --shares" in said.err
    assert vitrail("train", "--resume", tmp_path / "study").status == 2


def test_masking_is_another_study(monkeypatch: pytest.MonkeyPatch, colours_of_six: Path, tmp_path: Path) -> None:
    seen: list[Study] = []
    monkeypatch.setattr(study_masking, "masking", lambda settings: seen.append(settings) or {"study": "masking"})
    settings = replace(of(colours_of_six, tmp_path / "out"), kind="masking")
    assert study(settings) == {"study": "masking"}
    assert study(Study(resume=tmp_path / "out")) == {"study": "masking"}
    assert seen == [settings, replace(settings, resume=tmp_path / "out", workers=None)]
