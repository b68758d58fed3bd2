"""Whole runs of the objectives that compare views: with several processes, after a stop, and what comes of them."""

import json

import numpy as np
import PIL.Image
import pytest
import torch
import torch.distributed as dist

from vitrail import models
from vitrail.data.loader import FirstEpoch
from vitrail.data.preprocess import Preprocess
from vitrail.data.unlabelled import open_images
from vitrail.errors import Interrupted, SettingError
from vitrail.objectives import IMAGE_OBJECTIVES
from vitrail.proofs.resume import bit_equal
from vitrail.recipes.evaluating.evaluate import evaluate
from vitrail.recipes.evaluating.settings import Evaluate
from vitrail.recipes.pretraining.pretrain import pretrain
from vitrail.recipes.pretraining.settings import Pretrain
from vitrail.recipes.training.settings import Train
from vitrail.recipes.training.train import train
from vitrail.train import loop
from vitrail.train.state import STATE
from vitrail.weights.load import load, load_pretrained

needs_gloo = pytest.mark.skipif(not dist.is_gloo_available(), reason="this build of PyTorch has no gloo")
both = pytest.mark.parametrize("objective", ["simclr", "dino"])

CONFIG = ("width=32", "depth=2", "heads=2", "mlp=48", "stem=patch", "patch_size=4", "image_size=16,16")
OPTIONS = {
    "simclr": ("projection=16",),
    "dino": ("local_views=2", "outputs=32", "hidden=32", "bottleneck=16", "momentum=0.9", "frozen=0.2"),
}


def settings(objective, out, **changes):
    plain = {
        "data": "shapes:64",
        "model": "vit-micro",
        "config": CONFIG,
        "options": OPTIONS[objective],
        "objective": objective,
        "out": out,
        "steps": 8,
        "batch_size": 8,
        "workers": 0,
        "device": "cpu",
        "precision": "float32",
        "json": True,
    }
    return Pretrain(**{**plain, **changes})


def records(folder, kind="validation"):
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [record for record in map(json.loads, lines) if record["kind"] == kind]


@pytest.fixture(scope="module", params=["simclr", "dino"])
def finished(request, tmp_path_factory):
    """An objective's name, its run's folder, and the figures at its end."""
    folder = tmp_path_factory.mktemp("runs") / request.param
    return request.param, folder, pretrain(settings(request.param, folder))


FIGURES = {"simclr": {"loss", "matched"}, "dino": {"loss", "entropy", "information"}}


def test_every_validation_tells_what_features_know_of_the_classes(finished):
    name, folder, figures = finished
    validations = records(folder)
    assert len(validations) >= 8
    assert FIGURES[name] <= set(figures)
    for record in validations:
        assert FIGURES[name] | {"knn"} <= set(record)
        assert 0 <= record["knn"] <= 1


def test_it_is_evaluated_on_the_same_views_each_time(finished):
    name, folder, figures = finished
    plain = {"device": "cpu", "precision": "float32", "batch_size": 5, "json": True}
    first, again = (evaluate(Evaluate(str(folder), **plain)) for _ in range(2))
    assert first == again
    assert {key: first[key] for key in FIGURES[name]} == pytest.approx({key: figures[key] for key in FIGURES[name]})


def test_another_model_can_be_trained_from_it(finished, tmp_path):
    name, folder, _ = finished
    common = {"weights": str(folder), "workers": 0, "device": "cpu", "precision": "float32", "batch_size": 8}
    train(Train(data="shapes:40", out=tmp_path / "fine", epochs=1, **common))
    before, after = load(folder).backbone.state_dict(), load(tmp_path / "fine").backbone.state_dict()
    assert before.keys() == after.keys()
    assert not torch.equal(before["blocks.0.mlp.fc1.weight"], after["blocks.0.mlp.fc1.weight"])
    figures = pretrain(settings(name, tmp_path / "more", weights=str(folder), steps=2, model="auto", config=()))
    assert np.isfinite(figures["loss"])


def test_what_others_start_from_can_be_trained(finished):
    found = load_pretrained(finished[1])
    assert all(parameter.requires_grad for parameter in found.backbone.parameters())


@pytest.mark.parametrize("finished", ["dino"], indirect=True)
def test_dino_gives_away_its_teacher_as_it_was_last(finished):
    _, folder, _ = finished
    last = torch.load(folder / STATE, weights_only=True)
    found = load_pretrained(folder).backbone.state_dict()
    assert all(torch.equal(value, last["weights"][f"backbone.{name}"]) for name, value in found.items())
    assert last["state"]["best_step"] == 8
    assert not torch.equal(found["norm.weight"], last["weights"]["student.norm.weight"])


@both
def test_a_stopped_run_goes_on_exactly(objective, tmp_path, monkeypatch):
    pretrain(settings(objective, tmp_path / "whole"))
    saved = loop.checkpoint.save

    def stop_after(folder, state, *rest):
        saved(folder, state, *rest)
        if state.step == 3:
            raise Interrupted("stopped", 130)

    with monkeypatch.context() as patch:
        patch.setattr(loop.checkpoint, "save", stop_after)
        with pytest.raises(Interrupted):
            pretrain(settings(objective, tmp_path / "parts", save_seconds=0))
    pretrain(Pretrain(resume=tmp_path / "parts", device="cpu", json=True))
    states = [torch.load(tmp_path / name / STATE, weights_only=True) for name in ("whole", "parts")]
    assert bit_equal(states[0]["weights"], states[1]["weights"])
    assert bit_equal(states[0]["optimizer"], states[1]["optimizer"])
    assert (tmp_path / "whole" / "metrics.jsonl").read_bytes() == (tmp_path / "parts" / "metrics.jsonl").read_bytes()


def test_dino_may_cut_its_batches_and_simclr_may_not(tmp_path):
    with pytest.raises(SettingError, match="compares the images of a batch"):
        pretrain(settings("simclr", tmp_path / "simclr", accumulate=2))
    with pytest.raises(SettingError, match="give more than one"):
        pretrain(settings("simclr", tmp_path / "simclr", batch_size=1))
    pretrain(settings("dino", tmp_path / "whole", steps=4))
    pretrain(settings("dino", tmp_path / "cut", steps=4, accumulate=2))
    losses = [[record["loss"] for record in records(tmp_path / name, "train")] for name in ("whole", "cut")]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


def test_grey_images_are_compared_too_and_never_mirrored(tmp_path):
    kind = IMAGE_OBJECTIVES["simclr"]
    made = []
    original = kind.training_batches

    def spy(self, *rest):
        made.append(original(self, *rest))
        return made[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kind, "training_batches", spy)
        pretrain(settings("simclr", tmp_path / "run", data="digits", steps=2))
    for batches in made:
        assert batches.augment.flip == 0
        assert [augment.flip for augment, _ in batches.further] == [0]
    assert made[0].preprocess.channels == 1


def test_images_without_labels_have_no_figure_of_neighbours(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for index in range(40):
        pixels = np.random.default_rng(index).integers(0, 256, (20, 24, 3), dtype=np.uint8)
        PIL.Image.fromarray(pixels).save(folder / f"{index}.png")
    pretrain(settings("simclr", tmp_path / "run", data=str(folder), steps=2, batch_size=2))
    assert "knn" not in records(tmp_path / "run")[-1]


def test_what_is_held_back_is_measured_in_a_random_order_and_always_the_same():
    dataset = open_images("shapes:64")
    preprocess = Preprocess((16, 16))
    learner = IMAGE_OBJECTIVES["simclr"](
        "resnet-20", models.create("resnet-20", image_size=16), preprocess, IMAGE_OBJECTIVES["simclr"].Options()
    )
    classes = len(dataset.classes)
    batches = learner.evaluation_batches(dataset.splits["validation"], classes, 64)
    assert isinstance(batches, FirstEpoch)
    count = len(dataset.splits["validation"])
    (batch,) = (batches[i] for i in range(len(batches)))
    assert len(batch) == count
    assert list(batch.names) != [dataset.splits["validation"].name(i) for i in range(count)]
    assert torch.equal(batches[0].views[0], batch.views[0])
    parts = [learner.evaluation_batches(dataset.splits["validation"], classes, 9, rank, 2)[0] for rank in range(2)]
    assert len(parts[0]) == len(parts[1]) == count // 4 * 4 // 2
    assert not set(parts[0].names) & set(parts[1].names)


# ---- several processes ----


@needs_gloo
@pytest.mark.parametrize(
    ("finished", "flags"),
    [("simclr", []), ("dino", []), ("dino", ["--shard"])],
    ids=["simclr", "dino", "dino-shards"],
    indirect=["finished"],
)
def test_two_processes_learn_as_one_does(complete, finished, tmp_path, flags):
    name, folder, _ = finished
    words = ["shapes:64", "--objective", name, "--model", "vit-micro", "--config", *CONFIG, "--options", *OPTIONS[name]]
    words += ["--steps", 8, "--batch-size", 8, "--workers", 0, "--device", "cpu", "--precision", "float32"]
    complete("pretrain", *words, *flags, "--out", tmp_path / "two", processes=2)
    for key in ("loss", "gradient_norm"):
        one, two = ([record[key] for record in records(where, "train")] for where in (folder, tmp_path / "two"))
        assert two == pytest.approx(one, rel=1e-3)
    weights = load(folder).state_dict()
    for key, value in load(tmp_path / "two").state_dict().items():
        torch.testing.assert_close(value, weights[key], atol=2e-3, rtol=2e-2)
