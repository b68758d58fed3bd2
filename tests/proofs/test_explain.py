import json

import numpy as np
import pytest
import torch

from vitrail import models
from vitrail.data.preprocess import Preprocess
from vitrail.data.shapes import CLASSES, Shapes
from vitrail.explain.maps import METHODS
from vitrail.proofs import explain
from vitrail.tasks import Classification


def a_task(model="vit-micro"):
    torch.manual_seed(0)
    shape = {"width": 16, "depth": 1, "heads": 2, "mlp": 16, "patch_size": 8, "image_size": (64, 64)}
    backbone = models.create(model, **(shape if model == "vit-micro" else {"width": 8, "depths": (1, 1)}))
    return Classification(model, backbone, CLASSES, Preprocess((64, 64))).eval()


def test_a_model_without_attention_is_judged_by_what_it_has():
    able = set(explain.candidates(a_task("resnet-18"), seed=0))
    assert able == {name for name, method in METHODS.items() if not method.needs_attention} | {"colour", "random"}
    assert set(explain.candidates(a_task(), seed=0)) == {*METHODS, "colour", "random"}


def test_the_boxes_are_those_of_the_largest_shapes():
    source = Shapes(6)
    images, classes, boxes = explain.scenes(a_task(), source, range(2, 6))
    assert images.shape == (4, 3, 64, 64)
    for row, number in enumerate(range(2, 6)):
        sample = source.sample(number)
        np.testing.assert_array_equal(images[row].permute(1, 2, 0), sample.image)
        assert classes[row] == sample.label.index == sample.boxes.classes[0]
        np.testing.assert_array_equal(boxes[row], sample.boxes.xyxy[0])
        areas = [mask.sum() for mask in sample.masks.masks]
        assert areas[0] == max(areas)


def test_what_stands_out_is_found_without_a_model():
    image = torch.full((1, 3, 64, 64), 90, dtype=torch.uint8)
    image[0, 0, 16:24, 40:48] = 250
    heat = explain.contrast(image)[0]
    assert (heat == heat.max()).nonzero().tolist() == [[2, 5]]


@pytest.fixture
def few_scenes(monkeypatch):
    monkeypatch.setattr(explain, "SCENES", 6)
    monkeypatch.setattr(explain, "BATCH", 4)


def test_a_map_of_the_truth_hits_always(few_scenes):
    test = explain.open_shapes(f"shapes:{explain.TRAINING}").splits["test"]
    known = iter([test.sample(number).masks.masks[0] for number in range(6)])

    def truth(task, images, classes):
        return torch.stack([torch.from_numpy(next(known)).float() for _ in images])

    figures = explain.measure(a_task(), truth, "truth")
    assert figures["pointing"] >= 5 / 6  # the middle of a shape that another one hides in part may be the other one's
    assert 0 < figures["deletion"] < 1
    assert 0 < figures["insertion"] < 1


def fake_training(accuracy):
    def trained(settings):
        from vitrail.weights.save import save_description, save_weights

        task = a_task(settings.model)
        save_description(task, settings.out)
        save_weights(task.state_dict(), settings.out)
        return {"top1": accuracy}

    return trained


def test_the_worse_of_both_models_counts_and_all_figures_are_kept(tmp_path, monkeypatch, few_scenes):
    monkeypatch.setattr(explain, "train", fake_training(0.97))
    proof = explain.prove(None, tmp_path)
    figures = json.loads((tmp_path / "explain.json").read_text())
    judged = {"vit-micro": "relevance", "resnet-18": "gradcam"}
    hits = [figures[model]["methods"][method]["pointing"] for model, method in judged.items()]
    assert proof.measured == min(hits)
    assert proof.baseline == figures["vit-micro"]["methods"]["random"]["pointing"]
    assert figures["resnet-18"]["accuracy"] == 0.97


def test_a_model_that_is_often_wrong_is_not_explained(tmp_path, monkeypatch):
    monkeypatch.setattr(explain, "train", fake_training(0.9))
    proof = explain.prove(None, tmp_path)
    assert (proof.measured, proof.bar, proof.passed) == (0.9, 0.95, False)
    assert proof.what.startswith("accuracy of vit-micro")
