"""A classifier trained from random weights on real images, beside logistic regression on their pixels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vitrail.console import say
from vitrail.data.dataset import open_dataset
from vitrail.data.sample import Label
from vitrail.data.source import Dataset, Source
from vitrail.errors import SettingError
from vitrail.proofs.proof import Proof
from vitrail.recipes.training.settings import Train
from vitrail.recipes.training.train import train

STRENGTHS = (1e-4, 1e-3, 1e-2)  # the baseline's C, of which validation chooses; weaker ones only fit for longer


def train_and_compare(proof: Proof, find: Callable[[], Path], settings: Train) -> Proof:
    """``proof`` with the test accuracy of what ``settings`` train, the baseline's, and the seconds of training.

    Where the data that ``find`` looks for are missing, or a package is, the proof is skipped and tells the reason.
    """
    try:
        data = str(find())
        baseline = logistic_regression(open_dataset(data, seed=settings.seed))
    except SettingError as error:
        return replace(proof, reason=str(error))
    say(f"{proof.name}: logistic regression has {baseline:.2%}")
    figures = train(replace(settings, data=data))
    return replace(proof, measured=figures["top1"], baseline=baseline, seconds=figures["seconds"])


def from_scratch(out: Path, model: str, config: tuple[str, ...], image_size: int, epochs: int, seed: int) -> Train:
    """How the small networks of the proofs are trained on photographs of 32 pixels, all in the same way."""
    return Train(
        out=out,
        overwrite=True,
        model=model,
        config=config,
        weights="none",
        image_size=image_size,
        epochs=epochs,
        batch_size=64,
        learning_rate=1e-3,
        augment="light",
        seed=seed,
    )


def logistic_regression(dataset: Dataset) -> float:
    """Test accuracy of multinomial logistic regression on standardised pixels; validation chooses its strength C.

    Raises :class:`SettingError` if scikit-learn is not installed.
    """
    try:
        from sklearn.linear_model import LogisticRegression
    except ImportError as error:
        raise SettingError("the baseline is computed with scikit-learn: pip install 'vitrail[demo]'.") from error
    pixels, classes = pixels_and_classes(dataset.splits["train"])
    mean, deviation = pixels.mean(axis=0), pixels.std(axis=0) + 0.1  # so that pixels that hardly ever vary stay quiet
    models = [
        LogisticRegression(C=strength, max_iter=1000).fit((pixels - mean) / deviation, classes)
        for strength in STRENGTHS
    ]

    def accuracy(model: LogisticRegression, source: Source) -> float:
        pixels, classes = pixels_and_classes(source)
        return float(model.score((pixels - mean) / deviation, classes))

    best = max(models, key=lambda model: accuracy(model, dataset.splits["validation"]))
    return accuracy(best, dataset.splits["test"])


def pixels_and_classes(source: Source) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """All images of one size as rows ``(n, H · W · C)`` of values in 0 … 1, and their classes ``(n,)``."""
    samples = [source.sample(index) for index in range(len(source))]
    pixels = np.stack([sample.image.ravel() for sample in samples]).astype(np.float32) / np.float32(255)
    return pixels, np.array([sample.label.index for sample in samples if isinstance(sample.label, Label)])
