"""What features that were learned without labels know of the classes: a linear classifier on them, frozen."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from vitrail.console import say
from vitrail.data.dataset import open_dataset
from vitrail.data.loader import EvaluationBatches
from vitrail.data.preprocess import Preprocess
from vitrail.data.source import Dataset, SplitName
from vitrail.errors import SettingError
from vitrail.metrics.probe import linear_probe
from vitrail.objectives import ImageObjective
from vitrail.proofs.data import cifar10
from vitrail.proofs.proof import Proof
from vitrail.recipes.evaluating.evaluate import evaluate
from vitrail.recipes.evaluating.settings import Evaluate
from vitrail.recipes.pretraining.images import build
from vitrail.recipes.pretraining.pretrain import pretrain
from vitrail.recipes.pretraining.settings import Pretrain
from vitrail.recipes.settings import Stated
from vitrail.weights.save import save_description, save_weights

MORE = 0.05  # what the probe must be better by than the baseline


def learn_and_probe(name: str, data: Path | None, settings: Pretrain) -> Proof:
    """Accuracy on CIFAR-10's test images of a linear classifier on what ``settings`` learn.

    The baseline is the better one of the same on the network before it learned, and on the pixels that it sees.
    """
    proof = Proof(name, "accuracy of a linear probe", measured=None, baseline=None, bar=1.0)
    try:
        settings = replace(settings, data=str(cifar10(data)))
    except SettingError as error:
        return replace(proof, reason=str(error))
    began = time.perf_counter()
    pretrain(settings)
    measured, baseline = probed(settings)
    seconds = round(time.perf_counter() - began, 1)
    return replace(proof, measured=measured, baseline=baseline, bar=baseline + MORE, seconds=seconds)


def probed(settings: Pretrain, config: tuple[str, ...] = ()) -> tuple[float, float]:
    """Accuracy of a linear probe on the features of the run, and the better one of random weights and pixels.

    ``config`` says which features, where a model has several.
    """
    assert settings.out is not None
    dataset = open_dataset(str(settings.data), seed=settings.seed)
    learner = build(settings, 32, 3).fitted_to(dataset.splits["train"], settings.seed)
    untrained = settings.out / "untrained"
    save_description(learner, untrained)
    save_weights(learner.state_dict(), untrained)
    measured, random = (linear(run, settings, config) for run in (settings.out, untrained))
    seen = of_pixels(dataset, learner)
    say(f"{settings.objective}: linear probe {measured:.2%}, of random weights {random:.2%}, of pixels {seen:.2%}")
    return measured, max(random, seen)


def linear(run: Path, settings: Pretrain, config: tuple[str, ...] = (), split: SplitName = "test") -> float:
    """The accuracy of a linear probe on the features of a run."""
    asked = Evaluate(str(run), settings.data, probe="linear", split=split, workers=settings.workers, json=True)
    return float(evaluate(replace(asked, stated=Stated(config=config)))["top1"])


def of_pixels(dataset: Dataset, learner: ImageObjective) -> float:
    """The test accuracy of a linear probe on images as the learner sees them."""
    train, validation, test = (as_seen(dataset, split, learner.preprocess) for split in ("train", "validation", "test"))
    weight, bias = linear_probe(
        train[0].flatten(1), train[1], (validation[0].flatten(1), validation[1]), len(dataset.classes)
    )
    right = (test[0].flatten(1) @ weight.T + bias).argmax(dim=1) == test[1]
    return right.double().mean().item()


def as_seen(dataset: Dataset, split: SplitName, preprocess: Preprocess) -> tuple[Tensor, Tensor]:
    """All images of a split as a model sees them, ``(M, C, h, w)`` in 0 … 1, and their classes ``(M,)``."""
    batches = EvaluationBatches(dataset.splits[split], len(dataset.classes), preprocess, 100)
    parts = [batches[number][0] for number in range(len(batches))]
    images = torch.cat([batch.images for batch in parts]).float() / 255
    return images, torch.cat([batch.labels.argmax(dim=1) for batch in parts if batch.labels is not None])
