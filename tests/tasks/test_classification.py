"""The loss by hand, scores, the way to JSON and back, and that prediction sees what training saw."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from vitrail import models
from vitrail.data.augment import Augment
from vitrail.data.files import Files
from vitrail.data.loader import EvaluationBatches, TrainingBatches
from vitrail.data.mix import Mix
from vitrail.data.preprocess import Preprocess
from vitrail.data.sample import Batch
from vitrail.errors import SettingError, UnreadableImage
from vitrail.metrics.classification import ClassificationMetric
from vitrail.metrics.many_labels import ManyLabelsMetric
from vitrail.tasks import TASKS
from vitrail.tasks.classification import Classification, Scored, class_weights

CLASSES = ("ant", "bee", "cat")
TINY_VIT = {"width": 8, "depth": 1, "heads": 2, "mlp": 8, "image_size": 8, "patch_size": 4}
PREPROCESS = Preprocess(size=(8, 8), crop_fraction=0.8, mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))


def classifier(**options: Any) -> Classification:
    torch.manual_seed(0)
    return Classification("vit-ti16", models.create("vit-ti16", **TINY_VIT), CLASSES, PREPROCESS, **options).eval()


LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.0, 3.0, -2.0]])
SOFT = torch.tensor([[0.7, 0.3, 0.0], [0.0, 0.25, 0.75]])
HARD = torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
MANY = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
WEIGHTS = np.array([0.5, 1.0, 2.0], np.float32)


def loss(labels: Tensor, **options: Any) -> float:
    """The loss of a task whose backbone is the identity on logits that are given."""

    class Given(torch.nn.Module):
        def outputs(self, features: object) -> list[tuple[Tensor, float]]:
            return [(LOGITS, 0.75), (LOGITS, 0.25)]

    task = classifier(**options)
    task.head = Given()
    return task.loss(Batch(torch.zeros(2, 3, 8, 8), ("a", "b"), labels))["loss"].item()


@pytest.mark.parametrize("labels", [SOFT, HARD])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_with_one_label_it_is_the_cross_entropy(labels: Tensor, smoothing: float, weights: Any) -> None:
    total = 0.0
    for row, target in zip(LOGITS.tolist(), labels.tolist(), strict=True):
        normaliser = math.log(sum(math.exp(logit) for logit in row))
        for k, (logit, share) in enumerate(zip(row, target, strict=True)):
            smoothed = share * (1 - smoothing) + smoothing / 3
            total += (1.0 if weights is None else float(weights[k])) * smoothed * (normaliser - logit)
    assert loss(labels, label_smoothing=smoothing, class_weights=weights) == pytest.approx(total / 2, rel=1e-6)


def test_without_weights_it_is_torchs_for_class_numbers() -> None:
    expected = F.cross_entropy(LOGITS, torch.tensor([1, 2]), label_smoothing=0.2).item()
    assert loss(HARD, label_smoothing=0.2) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_with_many_labels_it_is_the_mean_binary_cross_entropy(smoothing: float, weights: Any) -> None:
    total = 0.0
    for row, target in zip(LOGITS.tolist(), MANY.tolist(), strict=True):
        for k, (logit, truth) in enumerate(zip(row, target, strict=True)):
            probability = 1 / (1 + math.exp(-logit))
            smoothed = truth * (1 - smoothing) + smoothing / 2
            entropy = -smoothed * math.log(probability) - (1 - smoothed) * math.log(1 - probability)
            total += (1.0 if weights is None else float(weights[k])) * entropy
    computed = loss(MANY, many_labels=True, label_smoothing=smoothing, class_weights=weights)
    assert computed == pytest.approx(total / 6, rel=1e-6)


def test_parts_of_a_batch_add_up_to_it() -> None:
    """Also with class weights; accumulation relies on it."""
    task = classifier(class_weights=WEIGHTS, label_smoothing=0.1)
    images = torch.randint(256, (6, 3, 8, 8), dtype=torch.uint8)
    whole = Batch(images, tuple("abcdef"), torch.eye(3)[[0, 1, 2, 2, 2, 0]])
    parts = sum(task.loss(part)["loss"].item() * len(part) / 6 for part in whole.split(4))
    assert parts == pytest.approx(task.loss(whole)["loss"].item(), rel=1e-6)


def test_class_weights_make_every_class_count_the_same() -> None:
    """Ten images: class 0 has six, class 1 three, class 2 one, class 3 none."""
    weights = class_weights(np.array([6, 3, 1, 0]))
    assert weights.dtype == np.float32
    np.testing.assert_allclose(weights[:3], [10 / 24, 10 / 12, 10 / 4])
    assert np.isfinite(weights).all()
    np.testing.assert_allclose(weights[:3] * [6, 3, 1], 2.5)
    np.testing.assert_allclose(class_weights(np.array([5, 5])), [1, 1])


def test_class_weights_are_no_part_of_the_model() -> None:
    assert classifier(class_weights=WEIGHTS).state_dict().keys() == classifier().state_dict().keys()


@pytest.mark.parametrize("options", [{"label_smoothing": -0.1}, {"label_smoothing": 1.0}, {"label_smoothing": math.nan},
                                     {"temperature": 0.0}, {"temperature": math.inf}])  # fmt: skip
def test_settings_that_make_no_sense_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(SettingError, match=str(next(iter(options.values())))):
        classifier(**options)


# --------------------------------------------------------------------------------------------------- scores and decode


@pytest.mark.parametrize("temperature", [1.0, 0.5, 3.0])
def test_scores_are_calibrated_probabilities(temperature: float) -> None:
    one, many = classifier(temperature=temperature), classifier(temperature=temperature, many_labels=True)
    powers = [[math.exp(logit / temperature) for logit in row] for row in LOGITS.tolist()]
    softmax = [[power / sum(row) for power in row] for row in powers]
    sigmoid = [[power / (1 + power) for power in row] for row in powers]
    torch.testing.assert_close(one.scores(LOGITS), torch.tensor(softmax))
    torch.testing.assert_close(many.scores(LOGITS), torch.tensor(sigmoid))
    assert one.scores(LOGITS.bfloat16()).dtype == torch.float32


def test_decoding_names_the_most_probable_first() -> None:
    best, second = classifier().decode(LOGITS, top=2)
    assert [scored.label for scored in best] == ["ant", "cat"]
    assert [scored.label for scored in second] == ["bee", "ant"]
    normaliser = sum(math.exp(logit) for logit in (2.0, -1.0, 0.5))
    assert best[0].score == pytest.approx(math.exp(2.0) / normaliser, abs=1e-6)
    assert [scored.label for scored in classifier().decode(LOGITS, top=99)[0]] == ["ant", "cat", "bee"]
    assert classifier().decode(torch.empty(0, 3)) == []


def test_the_metric_and_its_score_are_those_of_the_task() -> None:
    one, many = classifier(), classifier(many_labels=True)
    assert (type(one.metric()), one.score) == (ClassificationMetric, "top1")
    assert (type(many.metric()), many.score) == (ManyLabelsMetric, "map")
    labels = torch.eye(3)[:2]
    for task in (one, many):
        metric = task.metric()
        metric.update(LOGITS, labels, [0, 1])
        assert 0 <= metric.compute()[task.score] <= 1


# ------------------------------------------------------------------------------------------------------ there and back


@pytest.mark.parametrize(
    ("model", "changes", "preprocess"),
    [
        ("vit-ti16", TINY_VIT | {"pool": "map", "registers": 2, "layer_scale": 0.1}, PREPROCESS),
        ("resnet-18", {"depths": (1, 1), "width": 4, "stem": "small", "image_size": 16}, Preprocess(size=(16, 16))),
        ("lenet-5", {}, Preprocess(size=(28, 28), channels=1, mean=(0.1,), std=(0.3,), resize="pad")),
    ],
)
@pytest.mark.parametrize("many_labels", [False, True])
def test_the_description_makes_an_equal_task(
    model: str, changes: dict[str, Any], preprocess: Preprocess, many_labels: bool
) -> None:
    backbone = models.create(model, **changes)
    classes = ("ant", "bée", "", "class 4")
    task = Classification(model, backbone, classes, preprocess, many_labels=many_labels, temperature=1.75)
    text = json.dumps(task.to_json())
    again = TASKS[json.loads(text)["task"]].from_json(json.loads(text))
    assert isinstance(again, Classification)
    assert again.to_json() == task.to_json()
    assert (again.classes, again.preprocess, again.backbone.config) == (classes, preprocess, backbone.config)
    again.load_state_dict(task.state_dict())
    images = torch.randint(256, (2, preprocess.channels, *preprocess.size), dtype=torch.uint8)
    with torch.no_grad():
        assert torch.equal(task.eval()(images), again.eval()(images))
    assert task.decode(LOGITS.repeat(1, 2)[:, :4]) == again.decode(LOGITS.repeat(1, 2)[:, :4])


def test_bytes_and_normalised_floats_give_the_same_answer() -> None:
    task = classifier()
    images = torch.randint(256, (2, 3, 8, 8), dtype=torch.uint8)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (PREPROCESS.mean, PREPROCESS.std))
    with torch.no_grad():
        torch.testing.assert_close(task(images), task((images / 255 - mean) / std), atol=1e-5, rtol=1e-5)


def test_the_layers_are_those_of_the_backbone_with_the_head_at_the_end() -> None:
    task = classifier()
    assert task.depth == task.backbone.depth == 2
    assert task.layer("backbone.positions") == 0
    assert task.layer("backbone.blocks.0.mlp.fc1.weight") == 1
    assert task.layer("backbone.norm.weight") == task.layer("head.linear.weight") == 2


# ------------------------------------------------------------------------------------------------------------ predict


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (23, 17, 3), dtype=np.uint8)
    PIL.Image.fromarray(pixels).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def test_a_path_and_its_pixels_get_the_same_answer(photo: Path) -> None:
    task = classifier()
    answer = task.predict(photo)
    assert sorted(scored.label for scored in answer) == sorted(CLASSES)
    assert sum(scored.score for scored in answer) == pytest.approx(1, abs=1e-5)
    assert task.predict(str(photo)) == answer
    assert task.predict(np.asarray(PIL.Image.open(photo))) == answer
    assert task.predict(photo, top=1) == answer[:1]
    assert isinstance(answer[0], Scored)


def test_prediction_sees_what_the_loader_makes(photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task, seen = classifier(), []
    monkeypatch.setattr(task.backbone, "forward", lambda images: seen.append(images) or models.vit.ViT.forward(
        task.backbone, images))  # fmt: skip
    source = Files([photo])
    task.predict(photo)
    batch, _ = EvaluationBatches(source, 3, PREPROCESS, 1)[0]
    task(batch.images)
    task(TrainingBatches(source, 3, PREPROCESS, Augment(), Mix(), 1)[0].images)
    by_hand = torch.from_numpy(np.array(PIL.Image.open(photo).resize((10, 13), PIL.Image.Resampling.BICUBIC)))
    by_hand = by_hand[2:10, 1:9].permute(2, 0, 1)  # 8 / 0.8 = 10 pixels wide; the centre, of an odd rest the upper half
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (PREPROCESS.mean, PREPROCESS.std))
    assert torch.equal(seen[0], seen[1])
    assert torch.equal(seen[0], seen[2])
    torch.testing.assert_close(seen[0][0], (by_hand / 255 - mean) / std, atol=1e-5, rtol=1e-5)


def test_predicting_is_in_evaluation_mode_and_without_gradients(photo: Path) -> None:
    torch.manual_seed(0)
    backbone = models.create("vit-ti16", **TINY_VIT, dropout=0.5)
    task = Classification("vit-ti16", backbone, CLASSES, PREPROCESS).train()
    assert task.predict(photo) == task.predict(photo)
    assert not task(torch.zeros(1, 3, 8, 8)).is_inference()


def test_a_grey_array_is_seen_in_colour_by_a_model_of_colours() -> None:
    grey = np.random.default_rng(0).integers(0, 256, (9, 9, 1), dtype=np.uint8)
    assert classifier().predict(grey) == classifier().predict(np.repeat(grey, 3, axis=2))


@pytest.mark.parametrize(
    "array",
    [np.zeros((8, 8), np.uint8), np.zeros((8, 8, 4), np.uint8), np.zeros((8, 8, 3)), np.zeros((0, 8, 3), np.uint8)],
    ids=["no channels", "alpha", "float", "empty"],
)
def test_another_kind_of_array_is_refused_in_one_sentence(array: Any) -> None:
    with pytest.raises(SettingError) as caught:
        classifier().predict(array)
    assert str(caught.value) == f"an image is an array (H, W, 1 or 3) of uint8, not {array.shape} of {array.dtype}."


def test_a_file_that_is_no_image_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("not an image")
    for path in (tmp_path / "a.png", tmp_path / "missing.png", tmp_path):
        with pytest.raises(UnreadableImage) as caught:
            classifier().predict(path)
        assert caught.value.name == str(path)
