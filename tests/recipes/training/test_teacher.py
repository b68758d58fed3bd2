"""`--teacher`: whole runs with somebody to learn from, in one process and in two."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from vitrail.data.loader import load_batches
from vitrail.errors import CheckpointError, RunError, SettingError
from vitrail.proofs.resume import differences
from vitrail.recipes import run
from vitrail.recipes.training.settings import Train
from vitrail.recipes.training.train import train
from vitrail.train.log import read_log
from vitrail.weights.saved import load

STUDENT = ("width=24", "depth=2", "heads=3", "mlp=48", "patch_size=4", "image_size=16,16")


@pytest.fixture(scope="module")
def data(paint, tmp_path_factory):
    """The six colours, of which the teacher has seen other pictures."""
    return paint(tmp_path_factory.mktemp("lesson") / "data", count=10, seed=5)


@pytest.fixture
def settings(colours, data, tiny, tmp_path):
    """``settings(out, …)``: a small DeiT with a distillation token, taught by the model of six colours."""

    def make(out="run", **others) -> Train:
        fixed = {"model": "deit-ti16-distilled", "config": STUDENT, "weights": "none", "teacher": str(colours.folder)}
        return tiny(data, tmp_path / out, epochs=2, **fixed | others)

    return make


def breaking_off(after):
    """In the place of `load_batches`: as if the process died after so many steps."""

    def load(*arguments):
        for number, batch in enumerate(load_batches(*arguments)):
            if number == after:
                raise ConnectionResetError
            yield batch

    return load


def losses(folder):
    return [record["loss"] for record in read_log(folder / "metrics.jsonl") if record["kind"] == "train"]


@pytest.mark.parametrize("distill", ["hard", "soft"])
def test_the_student_alone_is_kept(settings, colours, tmp_path, distill):
    figures = train(settings(distill=distill, ema=0.5))
    student = load(tmp_path / "run")
    assert student.model == "deit-ti16-distilled"
    assert figures["images"] == 12
    fresh = {f"student.{name}" for name in student.state_dict()}
    assert torch.load(tmp_path / "run" / "last" / "state.pt", weights_only=True)["weights"].keys() == fresh
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (record["settings"]["teacher"], record["settings"]["distill"]) == (str(colours.folder), distill)
    assert len(record["teacher"]) == 32


def test_the_kind_of_teaching_and_the_teacher_change_what_is_learned(settings, tmp_path):
    for out, others in {"hard": {}, "soft": {"distill": "soft"}, "alone": {"teacher": None}}.items():
        train(settings(out, **others))
    curves = [losses(tmp_path / out) for out in ("hard", "soft", "alone")]
    assert len({tuple(curve) for curve in curves}) == 3


def test_a_model_without_a_distillation_token_can_learn_of_it_too(settings, tmp_path):
    figures = train(settings(model="vit-nano", config=("width=32", "depth=2", "heads=2", "mlp=64")))
    assert load(tmp_path / "run").model == "vit-nano"
    assert figures["split"] == "test"


def test_a_student_can_be_adapted_by_low_rank_changes(settings, colours, tmp_path):
    train(settings(model="auto", config=(), weights=str(colours.folder), adapt="lora"))
    assert load(tmp_path / "run").state_dict().keys() == load(colours.folder).state_dict().keys()


def test_it_goes_on_exactly_from_anywhere(settings, colours, tmp_path, monkeypatch):
    """Broken off in its second epoch; the teacher was named by a path from where the run was started."""
    train(settings("whole", ema=0.9, save_seconds=0.0))
    with monkeypatch.context() as patch:
        patch.setattr("vitrail.recipes.training.train.load_batches", breaking_off(after=3))
        patch.chdir(colours.folder.parent)
        with pytest.raises(ConnectionResetError):
            train(settings("parted", ema=0.9, save_seconds=0.0, teacher=colours.folder.name))
    monkeypatch.chdir(tmp_path)
    train(Train(resume=tmp_path / "parted"))
    assert differences(tmp_path / "whole", tmp_path / "parted") == []


def test_another_teacher_is_refused_when_a_run_goes_on(settings, colours, tmp_path):
    teacher = shutil.copytree(colours.folder, tmp_path / "teacher")
    train(settings(teacher=str(teacher)))
    record = run.read(tmp_path / "run")
    run.write(tmp_path / "run", record | {"teacher": "0" * 32})
    with pytest.raises(RunError, match=r"the teacher .*teacher is no longer the one that .*run was started with"):
        train(Train(resume=tmp_path / "run"))
    with pytest.raises(SettingError, match="leave out --teacher"):
        train(Train(resume=tmp_path / "run", teacher=str(colours.folder)))


def test_mistakes_are_found_before_a_file_is_written(settings, paint, tiny, colours, tmp_path):
    data = paint(tmp_path / "data", ["red", "blue"], count=10)
    with pytest.raises(SettingError, match="the student does not know 'cyan', 'green', 'magenta' and 1 more"):
        train(tiny(data, tmp_path / "run", teacher=str(colours.folder)))
    with pytest.raises((CheckpointError, RunError), match="nowhere"):
        train(settings(teacher=str(tmp_path / "nowhere")))
    with pytest.raises(SettingError, match="--distill soft needs somebody to learn from; name a model by --teacher"):
        train(settings(teacher=None, distill="soft"))
    assert not (tmp_path / "run").exists()


def test_it_says_who_teaches(vitrail, colours, data, tmp_path):
    words = ("--model", "vit-nano", "--config", "depth=1", "--epochs", 1, "--teacher", colours.folder)
    said = vitrail("train", data, *words, "--distill", "soft", "--out", tmp_path / "run", "--device", "cpu")
    assert said.status == 0
    assert f"taught by a vit-nano from {colours.folder}, soft labels" in said.err


def curve(folder: Path) -> list[float]:
    """Every loss in training and on validation."""
    return [record[key] for record in read_log(folder / "metrics.jsonl") for key in ("loss", "nll") if key in record]


@pytest.fixture(scope="module", params=["teacher", "lora"])
def one_process(request, complete, colours, data, tmp_path_factory):
    """The words that start a run, and its folder."""
    words = {
        "teacher": ["--model", "deit-ti16-distilled", "--config", *STUDENT, "--teacher", colours.folder],
        "lora": ["--adapt", "lora"],
    }[request.param]
    weights = {"teacher": "none", "lora": colours.folder}[request.param]
    fixed = ["--epochs", 2, "--batch-size", 8, "--workers", 0, "--device", "cpu", "--precision", "float32"]
    words = [data, *words, "--weights", weights, "--ema", 0.9, *fixed]
    folder = tmp_path_factory.mktemp(request.param) / "one"
    complete("train", *words, "--out", folder)
    return words, folder


@pytest.mark.skipif(not dist.is_gloo_available(), reason="this build of PyTorch has no gloo")
@pytest.mark.parametrize("flags", [[], ["--shard"]], ids=["copies", "shards"])
def test_two_processes_learn_what_one_does(complete, one_process, tmp_path, flags):
    """With copies of the weights (DDP) and with parts of them (FSDP2); and the state that they leave is theirs."""
    words, folder = one_process
    complete("train", *words, *flags, "--out", tmp_path / "two", processes=2)
    assert len(curve(folder)) > 10
    assert curve(tmp_path / "two") == pytest.approx(curve(folder), rel=1e-4)
    one, two = (load(path).state_dict() for path in (folder, tmp_path / "two"))
    assert one.keys() == two.keys()
    before = (tmp_path / "two" / "evaluation.json").read_bytes()
    if flags:
        complete("train", "--resume", tmp_path / "two", processes=2)
        assert (tmp_path / "two" / "evaluation.json").read_bytes() == before
