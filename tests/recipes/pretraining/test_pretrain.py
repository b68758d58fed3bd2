"""Pre-training as a person runs it: on a folder of images, on a file of text; killed, resumed, used."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from vitrail.errors import DataError, RunError, SettingError, UnknownName
from vitrail.objectives import MAE, NextToken
from vitrail.recipes.evaluating.evaluate import evaluate
from vitrail.recipes.evaluating.settings import Evaluate
from vitrail.recipes.pretraining import images as pretrain_images
from vitrail.recipes.pretraining import text as pretrain_text
from vitrail.recipes.pretraining.pretrain import pretrain
from vitrail.recipes.pretraining.settings import Pretrain
from vitrail.recipes.training.settings import Train
from vitrail.recipes.training.train import train
from vitrail.train.log import read_log
from vitrail.weights.load import load, load_pretrained
from vitrail.weights.text import load_backbone

TEXT = "She sells sea shells by the sea shore. The shells she sells are sea shells, I'm sure.\n" * 60
SMALL_GPT = ("width=32", "depth=2", "heads=2", "mlp=64", "dropout=0.1")
SMALL_VIT = ("width=32", "depth=2", "heads=2", "mlp=64")
SMALL_DECODER = ("decoder_depth=1", "decoder_heads=2")
QUIET = {"device": "cpu", "precision": "float32"}


class Killed(BaseException):
    """Ends a run as a signal does that cannot be caught."""


@pytest.fixture(scope="module")
def book(tmp_path_factory):
    file = tmp_path_factory.mktemp("text") / "book.txt"
    file.write_text(TEXT)
    return file


def on_text(book, out, **others):
    fixed = {"objective": "next-token", "steps": 20, "context": 16, "batch_size": 8, "config": SMALL_GPT}
    return Pretrain(data=str(book), out=out, **{**fixed, **QUIET, **others})


def on_images(data, out, **others):
    fixed = {"objective": "mae", "steps": 12, "batch_size": 8, "config": SMALL_VIT, "options": SMALL_DECODER}
    return Pretrain(data=str(data), out=out, workers=0, **{**fixed, **QUIET, **others})


@pytest.fixture(scope="module")
def pictures(tmp_path_factory, paint):
    return paint(tmp_path_factory.mktemp("pictures") / "data", ["blue", "green", "red"])


@pytest.fixture(scope="module")
def read_book(book, tmp_path_factory):
    """A run on text."""
    out = tmp_path_factory.mktemp("runs") / "text"
    return out, pretrain(on_text(book, out, steps=150, learning_rate=3e-3))


@pytest.fixture(scope="module")
def painted(pictures, tmp_path_factory):
    """A run on images."""
    out = tmp_path_factory.mktemp("runs") / "images"
    return out, pretrain(on_images(pictures, out))


def test_text_is_learned_and_the_run_holds_all_that_using_it_needs(read_book):
    out, figures = read_book
    assert figures["loss"] < 1.5  # 27 characters have 2.8 nats each where nothing but their frequency is known
    assert figures["split"] == "test"
    kept = {path.name for path in out.iterdir()}
    assert kept >= {"run.json", "model.json", "model.safetensors", "tokenizer.json", "metrics.jsonl", "plots", "last"}
    learner = load(out)
    assert isinstance(learner, NextToken)
    ids = torch.tensor([learner.tokenizer.encode("She sells sea s")])
    assert learner.tokenizer.token(int(learner(ids)[0, -1].argmax())) == "h"
    assert load_backbone(out).model == "gpt-nano"


def test_validations_are_recorded_with_their_losses(read_book):
    out, _ = read_book
    records = [record for record in read_log(out / "metrics.jsonl") if record["kind"] == "validation"]
    assert len(records) >= 10
    assert records[-1]["loss"] < records[0]["loss"]


def test_evaluate_says_what_pretrain_said(read_book, painted, book, pictures):
    for out, figures in (read_book, painted):
        again = evaluate(Evaluate(str(out), device="cpu", precision="float32"))
        assert again["split"] == figures["split"]
        assert again["loss"] == pytest.approx(figures["loss"], rel=1e-4)
    everything = evaluate(Evaluate(str(read_book[0]), str(book), device="cpu", precision="float32"))
    assert everything["split"] == "all"


def test_images_are_learned_from_and_their_weights_go_into_training_and_probes(painted, pictures, tmp_path):
    out, figures = painted
    assert figures["loss"] > 0
    learner = load(out)
    assert isinstance(learner, MAE)
    found = load_pretrained(out)
    for name, tensor in learner.backbone.state_dict().items():
        assert torch.equal(found.backbone.state_dict()[name], tensor)
    answer = train(Train(str(pictures), out=tmp_path / "run", weights=str(out), epochs=1, workers=0, **QUIET))
    assert answer["images"] > 0
    probed = evaluate(Evaluate(str(out), str(pictures), probe="knn", workers=0, **QUIET))
    assert probed["probe"] == "knn"


def test_pretrained_weights_are_gone_on_from(read_book, painted, book, pictures, tmp_path):
    pretrain(on_text(book, tmp_path / "text", weights=str(read_book[0]), steps=1, config=(), context=None))
    assert load(tmp_path / "text").backbone.config == load(read_book[0]).backbone.config
    pretrain(on_images(pictures, tmp_path / "images", weights=str(painted[0]), steps=1, config=()))
    assert load(tmp_path / "images").backbone.config == load(painted[0]).backbone.config


@pytest.mark.parametrize("kind", ["text", "images"])
@pytest.mark.parametrize("step", [1, 7])
def test_killed_and_resumed_it_ends_as_if_nothing_had_been(kind, step, book, pictures, tmp_path, monkeypatch):
    settings = on_text(book, None) if kind == "text" else on_images(pictures, None)
    module = pretrain_text if kind == "text" else pretrain_images
    settings = replace(settings, steps=9, save_seconds=0.0)
    pretrain(replace(settings, out=tmp_path / "whole"))
    batches = module.load_batches

    def killed(source, start, stop, workers):
        for number, batch in enumerate(batches(source, start, stop, workers), start):
            if number == step:
                raise Killed
            yield batch

    with monkeypatch.context() as patch:
        patch.setattr(module, "load_batches", killed)
        with pytest.raises(Killed):
            pretrain(replace(settings, out=tmp_path / "killed"))
    pretrain(Pretrain(resume=tmp_path / "killed"))
    for file in ("model.safetensors", "metrics.jsonl", "model.json"):
        assert (tmp_path / "killed" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()


def test_what_it_was_started_with_cannot_be_changed(read_book, book, tmp_path):
    out, _ = read_book
    with pytest.raises(SettingError, match="leave out --batch-size"):
        pretrain(Pretrain(resume=out, batch_size=3))
    with pytest.raises(RunError, match=r"was started by `vitrail pretrain`; go on with `vitrail pretrain --resume`"):
        train(Train(resume=out))


def test_changed_text_is_refused(tmp_path):
    (tmp_path / "a.txt").write_text(TEXT)
    pretrain(on_text(tmp_path / "a.txt", tmp_path / "run", steps=1))
    (tmp_path / "a.txt").write_text(TEXT.replace("shore", "store"))
    with pytest.raises(RunError, match="the data are no longer those"):
        pretrain(Pretrain(resume=tmp_path / "run"))


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"objective": None}, SettingError, "--objective says what is learned: of images mae"),
        ({"objective": "mea"}, UnknownName, "no objective called 'mea'; did you mean mae"),
        ({"data": None}, SettingError, "no data was given"),
        ({"epochs": 1, "steps": 2}, SettingError, "--epochs and --steps both"),
        ({"options": ("mask_ratio=0",)}, SettingError, "mask ratio"),
        ({"options": ("mask_ratio=1",)}, SettingError, "mask ratio"),
        ({"options": ("masks=1",)}, SettingError, "--options has no 'masks'; it has: mask_ratio"),
        ({"model": "resnet-18", "config": ()}, SettingError, "resnet-18"),
        ({"model": "gpt-nano", "config": ()}, SettingError, "gpt-nano"),
        ({"steps": 0}, SettingError, "--steps must be at least 1"),
    ],
)
def test_mistakes_are_named_and_nothing_is_written(pictures, tmp_path, changes, error, words):
    settings = on_images(pictures, tmp_path / "run")
    with pytest.raises(error, match=words):
        pretrain(replace(settings, **changes))
    assert not (tmp_path / "run").exists()


def test_text_shorter_than_the_context_is_refused(tmp_path):
    (tmp_path / "a.txt").write_text("short")
    with pytest.raises(DataError, match="fewer than the 17 of a window"):
        pretrain(on_text(tmp_path / "a.txt", tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_the_commands(vitrail, book, tmp_path):
    words = ("--objective", "next-token", "--steps", 2, "--context", 16, "--config", *SMALL_GPT)
    done = vitrail("pretrain", book, *words, "--out", tmp_path / "run", "--json")
    assert done.status == 0
    assert json.loads(done.out)["run"] == str(tmp_path / "run")
    assert "parted by place" in done.err
    assert f"vitrail generate {tmp_path / 'run'}" in done.err
    refused = vitrail("predict", tmp_path / "run", "a.jpg")
    assert refused.status == 2
    again = vitrail("pretrain", book, *words, "--out", tmp_path / "run")
    assert (again.status, "already holds a run" in again.err) == (2, True)


def test_an_output_layer_of_its_own_goes_on_too(book, tmp_path):
    """T5 v1.1's is not the embedding of the tokens, and so no part of the model."""
    shape = ("width=16", "depth=1", "decoder_depth=1", "heads=2", "head_width=8", "mlp=32")
    span = {"objective": "span", "model": "t5-nano", "context": 24}
    pretrain(on_text(book, tmp_path / "t5", **span, config=shape, steps=3))
    again = on_text(book, tmp_path / "again", **span | {"context": None}, config=(), weights=str(tmp_path / "t5"))
    begun, before = pretrain_text.prepare(again).learner.state_dict(), load(tmp_path / "t5").state_dict()
    assert begun.keys() == before.keys()
    assert any(not name.startswith("backbone.") for name in begun)
    for name, tensor in begun.items():
        assert torch.equal(tensor, before[name]), name
