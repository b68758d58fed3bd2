"""What features that were learned without labels know of the classes, beside what pixels know themselves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from vitrail.console import say
from vitrail.data.dataset import open_dataset
from vitrail.data.source import Dataset
from vitrail.errors import SettingError
from vitrail.metrics.probe import knn_logits
from vitrail.objectives import ImageObjective
from vitrail.proofs.classifier import pixels_and_classes
from vitrail.proofs.proof import Proof
from vitrail.recipes.evaluate import Evaluate, evaluate
from vitrail.recipes.pretrain import Pretrain, pretrain
from vitrail.recipes.probe import features_of
from vitrail.weights import saved
from vitrail.weights.load import Pretrained


def learn_and_compare(proof: Proof, find: Callable[[], Path], settings: Pretrain) -> Proof:
    """``proof`` with the test accuracy of a vote of the 20 nearest training images, by features and by pixels.

    The baseline is the better one of pixels and of the same network with random weights. Where the data that ``find``
    looks for are missing the proof is skipped and tells the reason.
    """
    try:
        data = str(find())
    except SettingError as error:
        return replace(proof, reason=str(error))
    assert settings.out is not None
    dataset = open_dataset(data, seed=settings.seed)
    figures = pretrain(replace(settings, data=data))
    measured = evaluate(Evaluate(str(settings.out), data, probe="knn", json=True))["top1"]
    pixels, random = by_pixels(dataset), by_random_weights(settings.out, dataset)
    say(f"{proof.name}: neighbours by features {measured:.2%}, by pixels {pixels:.2%}, random weights {random:.2%}")
    return replace(proof, measured=measured, baseline=max(pixels, random), seconds=figures["seconds"])


def by_pixels(dataset: Dataset) -> float:
    """The accuracy by cosine similarity of pixels less their mean over the image, the best of a few simple choices.

    On CIFAR-10 that is 42 %; with the mean left in it is 33 %.
    """
    (known, labels), (asked, truth) = (
        (torch.from_numpy(pixels - pixels.mean(axis=1, keepdims=True)), torch.from_numpy(classes))
        for pixels, classes in (pixels_and_classes(dataset.splits[split]) for split in ("train", "test"))
    )
    logits = knn_logits(known, labels, asked, len(dataset.classes))
    return (logits.argmax(dim=1) == truth).double().mean().item()


def by_random_weights(run: Path, dataset: Dataset) -> float:
    """The accuracy by features of the network of a run before it learned."""
    torch.manual_seed(0)
    learner = saved.describe(run)
    assert isinstance(learner, ImageObjective)
    found = Pretrained(learner.model, learner.backbone.eval(), learner.preprocess, (), {}, "bicubic-antialias")
    settings = Evaluate(str(run))
    train, test = (features_of(found, dataset, split, settings) for split in ("train", "test"))
    logits = knn_logits(train.features, train.labels, test.features, len(dataset.classes))
    return (logits.argmax(dim=1) == test.labels).double().mean().item()
