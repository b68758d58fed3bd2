"""Every objective keeps the promises of `Objective`: what it learns from depends on nothing but data and draws."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from vitrail import models
from vitrail.data.preprocess import Preprocess
from vitrail.data.sample import Batch
from vitrail.data.text.batch import TextBatch
from vitrail.data.text.characters import learn
from vitrail.objectives import IMAGE_OBJECTIVES, LEARNED_BY, OBJECTIVES, TEXT_OBJECTIVES
from vitrail.weights import saved
from vitrail.weights.save import save_description, save_weights

# A small model for each objective of images, with changes to its config.
IMAGE_MODELS = {
    "mae": ("vit-s16", {"width": 32, "depth": 2, "heads": 2, "mlp": 48, "patch_size": 4, "image_size": (16, 16)}),
    "dino": ("vit-s16", {"width": 32, "depth": 2, "heads": 2, "mlp": 48, "patch_size": 4, "image_size": (16, 16)}),
    "simclr": ("resnet-20", {"image_size": (16, 16)}),
    "next-pixel": ("igpt-nano", {"width": 32, "depth": 2, "heads": 2, "mlp": 48, "colours": 8}),
    "masked-pixel": (
        "igpt-nano",
        {"width": 32, "depth": 2, "heads": 2, "mlp": 48, "colours": 8, "causal": False, "shift": False},
    ),
}
# Options that make an objective small; all others stay as they are.
OPTIONS = {"mae": {"decoder_depth": 1, "decoder_heads": 2}}

TEXT = "the quick brown fox jumps over the lazy dog. " * 40


def image_objective(name):
    kind = IMAGE_OBJECTIVES[name]
    model, changes = IMAGE_MODELS[name]
    torch.manual_seed(0)
    backbone = models.create(model, **changes)
    plain = Preprocess(backbone.config.image_size, channels=3, mean=(0.5,) * 3, std=(0.5,) * 3)
    preprocess = kind.usual_preprocess(plain)
    return kind(model, backbone, preprocess, kind.Options(**OPTIONS.get(name, {})))


def text_objective(name):
    kind = TEXT_OBJECTIVES[name]
    tokenizer = learn([TEXT], 1000, kind.special)
    small = {"width": 32, "depth": 2, "heads": 2, "mlp": 48, "context": 24}
    torch.manual_seed(0)
    return kind(
        kind.usual_model,
        models.create_text(kind.usual_model, vocabulary=len(tokenizer), **small),
        tokenizer,
        kind.Options(**OPTIONS.get(name, {})),
    )


def build(name):
    return image_objective(name) if name in IMAGE_OBJECTIVES else text_objective(name)


def batch_of(learner, count=6):
    """A batch as its loader makes it."""
    rng = np.random.default_rng(0)
    if learner.name in TEXT_OBJECTIVES:
        documents = [np.array(learner.tokenizer.encode(TEXT), np.int32)]
        return learner.training_batches(documents, count, seed=0)[3]
    size = learner.preprocess.size

    def images(of):
        return torch.from_numpy(rng.integers(0, 256, (count, 3, *of), dtype=np.uint8))

    views = tuple(images(preprocess.size) for _, preprocess in learner.further)
    return Batch(images(size), ("image",) * count, draws=torch.arange(count) + 5, views=views)


@pytest.fixture(params=sorted(OBJECTIVES))
def learner(request):
    return build(request.param)


def test_every_objective_has_its_own_name():
    assert {kind.name: kind for kind in OBJECTIVES.values()} == OBJECTIVES
    assert set(LEARNED_BY) == set(models.TEXT_FAMILIES)


def test_the_loss_is_finite_and_its_gradient_reaches_every_weight_that_is_trained(learner):
    losses = learner.train().loss(batch_of(learner))
    assert all(value.ndim == 0 and torch.isfinite(value) for value in losses.values())
    losses["loss"].backward()
    without = [name for name, p in learner.named_parameters() if p.requires_grad and p.grad is None]
    assert without == []


def test_chance_is_the_batchs_alone(learner):
    """In evaluation nothing but the batch decides: not the global generator, nor what was computed before."""
    learner.eval()
    batch = batch_of(learner)
    torch.manual_seed(1)
    one = learner.loss(batch)
    torch.manual_seed(2)
    two = learner.loss(batch)
    assert {key: value.item() for key, value in one.items()} == {key: value.item() for key, value in two.items()}


def test_other_draws_are_another_loss_only_where_something_is_hidden(learner):
    learner.eval()
    if learner.name == "masked-pixel":  # whose output begins at zero, where nothing makes a difference
        torch.nn.init.normal_(learner.output.weight)
    batch = batch_of(learner)
    other = learner.loss(replace(batch, draws=batch.draws + 100))["loss"]
    hides = learner.name not in ("next-token", "next-pixel", "dino", "simclr")
    assert (other.item() != learner.loss(batch)["loss"].item()) == hides


def test_it_is_saved_and_loaded_whole(learner, tmp_path):
    save_description(learner, tmp_path)
    save_weights(learner.state_dict(), tmp_path)
    again = saved.load(tmp_path)
    assert type(again) is type(learner)
    assert again.options == learner.options
    assert {name: value.tolist() for name, value in again.state_dict().items()} == {
        name: value.tolist() for name, value in learner.state_dict().items()
    }
    batch = batch_of(learner)
    assert again.loss(batch)["loss"].item() == learner.eval().loss(batch)["loss"].item()
    assert "tokenizer" not in json.loads((tmp_path / "model.json").read_text())


def test_layers_are_the_backbones_and_the_rest_is_the_last(learner):
    for name, _ in learner.named_parameters():
        expected = learner.depth
        if name.startswith("backbone."):
            expected = learner.backbone.layer(name.removeprefix("backbone."))
        assert learner.layer(name) == expected


def test_a_batch_in_float32_and_as_parts_that_may_be_cut(learner):
    """The mean over the parts of a batch is its loss, where an objective says that it may be cut."""
    learner.eval()
    batch = batch_of(learner)
    if isinstance(batch, TextBatch) or learner.parts:
        parts = [learner.loss(part)["loss"] * len(part) for part in batch.split(3)]
        whole = learner.loss(batch)["loss"]
        loose = 0.2 if learner.name == "masked-token" else 1e-5  # of which a row may have more to guess than another
        torch.testing.assert_close(torch.stack(parts).sum() / len(batch), whole, atol=loose, rtol=loose)
