from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
import torch

from vitrail import models
from vitrail.bench.peak import Product
from vitrail.data.preprocess import Preprocess
from vitrail.errors import SettingError, UnknownName
from vitrail.export.predictor import Exported
from vitrail.recipes.benching import bench as of_bench
from vitrail.recipes.benching.bench import bench
from vitrail.recipes.benching.model import Case, Cost, answering, cost_of, latency, measure, opened, random_batch
from vitrail.recipes.benching.pipeline import pipeline_speed, training_batches
from vitrail.recipes.benching.settings import Bench
from vitrail.recipes.informing.models import cost_of as table

CPU = torch.device("cpu")


def case(model, mode="inference", batch_size=2, image_size=None, seconds=0.01):
    return Case(model, mode, batch_size, image_size, CPU, torch.float32, seconds, 1)


@pytest.fixture
def in_this_process(monkeypatch):
    """No new process is started, and what the machine can do is not measured: 1 TFLOP/s."""

    def answer(function, *arguments):
        return 1e12 if function is of_bench.best_rate else function(*arguments)

    monkeypatch.setattr(of_bench, "in_new_process", answer)
    monkeypatch.setattr("vitrail.recipes.benching.model.rate_of", lambda *arguments: 1e12)
    monkeypatch.setattr("vitrail.recipes.benching.model.keep_freed_memory", lambda: None)


# What a model costs


def test_a_vision_transformer_costs_what_its_matrices_say():
    """ViT-B/16 by hand: 35.1 GFLOPs an image, of which attention's own products are 4 N² D a layer."""
    N, D, M, depth = 14 * 14 + 1, 768, 3072, 12
    linear = depth * 2 * N * (3 * D * D + D * D + 2 * D * M)
    attention = depth * 4 * N * N * D
    patches, head = 2 * 196 * (16 * 16 * 3) * D, 2 * D * 1000
    cost = cost_of(case("vit-b16", batch_size=3))
    assert cost.flops == 3 * (patches + linear + attention + head)
    assert cost.flops / 3e9 == pytest.approx(35.1, abs=0.05)
    assert sum(product.flops * count for product, count in cost.products.items()) == 3 * (patches + linear + head)
    assert cost.products[Product(3 * N, D, 3 * D)] == depth
    assert cost.parameters == 86_567_656  # as timm counts them, with 1,000 classes

    # the way back takes twice as much, but that images need no gradient
    assert cost_of(case("vit-b16", "training", 3)).flops == 3 * cost.flops - 3 * patches


@pytest.mark.parametrize("name", ["resnext-50-32x4d", "pvt-v2-b0"])
def test_training_costs_three_times_as_much_whatever_the_convolutions(name):
    forward, both = (cost_of(case(name, mode)).flops for mode in ("inference", "training"))
    assert 2.95 < both / forward <= 3


@pytest.mark.parametrize("name", ["resnet-18", "igpt-nano", "vit-nano"])
def test_beside_the_head_it_is_what_the_table_of_models_says(name):
    cost, width = cost_of(case(name, batch_size=1)), models.create(name).width
    assert cost.flops == table(name).flops + 2 * width * 1000


def test_another_image_size():
    cost = cost_of(case("vit-ti16", image_size=64))
    assert cost.preprocess.size == (64, 64)
    assert Product(2 * 17, 192, 768) in cost.products


@pytest.mark.parametrize("family", models.FAMILIES)
def test_every_family_can_be_counted_as_it_learns(family):
    """About three times what the table has without a head; images need no gradient, auxiliary heads cost more."""
    name = min(models.FAMILIES[family].sizes, key=lambda name: table(name).flops)
    flops = cost_of(case(name, "training", batch_size=2)).flops
    assert 2.7 < flops / 2 / (table(name).flops + 2 * table(name).features * 1000) < 3.1


# How fast it is


def test_inference_is_what_evaluation_computes():
    task = opened("vit-nano", None)
    images = random_batch(task, 3).images
    assert images.is_contiguous(memory_format=torch.channels_last)
    logits = answering(task, CPU, torch.float32)(images)
    assert logits.is_inference()
    torch.testing.assert_close(logits, task.eval()(images), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("name", "mode"), [("lenet-5", "training"), ("vit-nano", "inference")])
def test_figures_of_a_model(name, mode, tmp_path, in_this_process):
    asked = case(name, mode)
    cost = cost_of(asked)
    figures = measure(asked, cost, tmp_path)
    rate = figures["images_per_second"]
    assert 0 < rate["low"] <= rate["median"] <= rate["high"]
    assert rate["repeats"] >= 5
    assert (figures["latency_ms"] is None) == (mode == "training")
    assert figures["limit_flops_per_second"] > 0
    # an odd number of repeats, or quartiles between two: the rate at the median time lies within the quartiles
    per_image = cost.flops / 2
    assert rate["low"] <= figures["flops_per_second"] / per_image <= rate["high"]


def test_training_is_measured_in_the_loop_itself(tmp_path, monkeypatch, in_this_process):
    """The weights have moved, so that steps were done; and nothing but the log's file was written."""
    tasks = []
    monkeypatch.setattr(
        "vitrail.recipes.benching.model.opened", lambda *words: tasks.append(opened(*words)) or tasks[-1]
    )
    asked = case("vit-nano", "training")
    measure(asked, Cost(Preprocess((8, 8)), 0, 0, Counter()), tmp_path)
    torch.manual_seed(0)
    before = dict(opened("vit-nano", None).named_parameters())
    moved = [name for name, after in tasks[-1].named_parameters() if not torch.equal(after, before[name])]
    assert len(moved) > len(before) / 2
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["metrics.jsonl"]


def test_percentiles_are_those_of_numpy():
    seconds = list(np.random.default_rng(0).exponential(0.01, size=150))
    assert latency(seconds) == {
        "p50": pytest.approx(1000 * np.median(seconds)),
        "p99": pytest.approx(1000 * np.quantile(seconds, 0.99)),
        "calls": 150,
    }


def test_images_a_second_of_the_pipeline(colours):
    batches = training_batches(str(colours.data), Preprocess((16, 16)), 8)
    before = torch.get_num_threads()
    figures = pipeline_speed(batches, seconds=0.01)
    assert (figures["images"], figures["image_size"], figures["channels"]) == (120, [16, 16], 3)
    rate = figures["images_per_second_a_core"]
    assert 0 < rate["low"] <= rate["median"] <= rate["high"]
    assert torch.get_num_threads() == before
    assert training_batches(str(colours.data), Preprocess((16, 16)), 1000).batch_size == 120


# The command


def test_one_document_says_all(vitrail):
    """As a person types it, with new processes."""
    flags = ("--batch-size", 4, "--mode", "training", "--seconds", 0.05, "--device", "cpu", "--json")
    said = vitrail("bench", "vit-nano", *flags)
    assert said.status == 0, said.err
    answer = json.loads(said.out)
    assert (answer["device"], answer["machine"]["torch"]) == ("cpu", torch.__version__)
    (row,) = answer["results"]
    assert (row["model"], row["mode"], row["batch_size"], row["image_size"]) == ("vit-nano", "training", 4, [8, 8])
    assert row["share_of_limit"] == pytest.approx(row["flops_per_second"] / row["limit_flops_per_second"])
    assert row["share_of_peak"] == pytest.approx(row["flops_per_second"] / answer["peak_flops_per_second"])
    assert row["peak_memory_bytes"] is None or row["peak_memory_bytes"] > 4 * 4 * row["parameters"]  # AdamW's
    assert row["error"] is None


def test_for_people_it_is_a_table(vitrail, in_this_process, colours, monkeypatch):
    monkeypatch.chdir(colours.folder.parent)
    flags = ("--mode", "inference", "--seconds", 0.01, "--device", "cpu", "--data", "data")
    lines = [line.split() for line in vitrail("bench", "lenet-5", "run", *flags).out.splitlines()]
    assert lines[0][:4] == ["model", "mode", "images/s", "quartiles"]
    assert [line[:2] for line in lines[1:3]] == [["lenet-5", "inference"], ["run", "inference"]]
    assert [line[:3] for line in lines if line[:1] == ["data"]] == [
        ["data", "images", "pixels"],
        ["data", "120", "28x28"],
        ["data", "120", "16x16"],
    ]


def test_a_model_that_does_not_fit_leaves_the_others(monkeypatch, in_this_process, vitrail):
    def too_large(asked, cost, folder):
        if asked.model == "vit-nano":
            raise MemoryError
        return measure(asked, cost, folder)

    monkeypatch.setattr(of_bench, "measure", too_large)
    flags = ("--mode", "inference", "--seconds", "0.01", "--device", "cpu")
    said = vitrail("bench", "vit-nano", "lenet-5", *flags, "--json")
    broken, whole = json.loads(said.out)["results"]
    assert said.status == 0
    assert (broken["model"], whole["error"]) == ("vit-nano", None)
    sentence = "a batch of 8 images of vit-nano does not fit into the memory of cpu; give a smaller --batch-size."
    assert broken["error"] == sentence
    assert f"vitrail: {sentence}\n" in said.err

    said = vitrail("bench", "vit-nano", *flags)
    assert (said.status, "images/s" in said.out) == (2, False)


def test_an_exported_file_answers_and_cannot_learn(monkeypatch, in_this_process):
    description = opened("vit-nano", None).to_json()
    exported = Exported(description, lambda images: torch.zeros(len(images), 1000))
    monkeypatch.setattr("vitrail.recipes.benching.model.open_classifier", lambda reference, stated: exported)
    (row,) = bench(Bench(("run.onnx",), seconds=0.01, device="cpu", json=True))["results"]
    assert (row["mode"], row["flops"], row["parameters"], row["share_of_limit"]) == ("inference", None, None, None)
    assert row["images_per_second"]["median"] > 0
    with pytest.raises(SettingError, match="cannot learn; use --mode inference"):
        bench(Bench(("run.onnx",), mode="training", device="cpu"))


@pytest.mark.parametrize(
    ("words", "error", "sentence"),
    [
        ({"models": ("vit-s17",)}, UnknownName, "no model called 'vit-s17'; did you mean vit-s16"),
        ({"models": ("gpt2",)}, SettingError, "gpt2 is a model of text, not of images"),
        ({"models": ()}, SettingError, "no model was given"),
        ({"batch_size": 0}, SettingError, "--batch-size must be at least 1, not 0"),
        ({"batch_size": 10**15}, SettingError, "does not fit into the memory of cpu; give a smaller --batch-size"),
        ({"seconds": 0.0}, SettingError, "--seconds must be a number above 0"),
        ({"image_size": 225}, SettingError, "225x225 is not divisible by the patch size 16"),
        ({"models": ("vgg-11",), "image_size": 16}, SettingError, "image"),
    ],
)
def test_mistakes_are_found_before_anything_is_measured(words, error, sentence, monkeypatch):
    monkeypatch.setattr(of_bench, "in_new_process", lambda *_: pytest.fail("something was measured"))
    settings = {"models": ("vit-ti16",), "device": "cpu", "mode": "inference", **words}
    with pytest.raises(error, match=sentence):
        bench(Bench(**settings))
