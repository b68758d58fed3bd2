"""iGPT knows what colour comes next, how a picture goes on, and what it shows: CIFAR-10 at 16 pixels, 64 colours.

One small network, trained once, is measured in three ways; a later proof trains it where the first has not.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from vitrail.console import say
from vitrail.data.dataset import open_dataset
from vitrail.data.source import Dataset, SplitName
from vitrail.errors import SettingError
from vitrail.nn.sampling import sample
from vitrail.objectives.pixels import NextPixel
from vitrail.proofs.data import cifar10
from vitrail.proofs.probed import MORE, as_seen, linear, probed
from vitrail.proofs.proof import Proof
from vitrail.recipes.evaluating.evaluate import evaluate
from vitrail.recipes.evaluating.settings import Evaluate
from vitrail.recipes.pretraining.pretrain import pretrain
from vitrail.recipes.pretraining.settings import Pretrain
from vitrail.recipes.run import RECORD
from vitrail.weights import objective

COMPLETED, OFTEN = 200, 4  # test images that are completed, and how many times each
AT_ONCE = 64  # of them


def prove(data: Path | None, out: Path, seed: int = 0) -> Proof:
    """Nats a pixel of test images, and of the left-pixel bigram: which colour follows which in a row, counted."""
    proof = Proof("igpt", "nats a pixel", measured=None, baseline=None, bar=2.0, better="lower")
    return _measured(proof, data, out, seed, nats)


def prove_completion(data: Path | None, out: Path, seed: int = 0) -> Proof:
    """Squared error of lower halves, and of the last row that is given, repeated.

    A painted half is the mean of a few: a single one is as far from the truth as two pictures of the same kind are.
    """
    proof = Proof("igpt-completion", "squared error of lower halves", None, None, bar=0.06, better="lower")
    return _measured(proof, data, out, seed, completed)


def prove_probe(data: Path | None, out: Path, seed: int = 0) -> Proof:
    """Accuracy of a linear classifier on the features of a layer, and on the pixels that the network sees.

    Of all layers the one is taken whose features are the best on validation images.
    """

    def compare(learner: NextPixel, data: str, run: Path) -> tuple[float, float]:
        settings, layers = small_igpt(data, run, seed), range(1, learner.backbone.config.depth + 1)
        configs = [(f"feature_layer={layer}",) for layer in layers]
        best = max(configs, key=lambda config: linear(run, settings, config, "validation"))
        say(f"igpt-probe: {best[0]} is the best on validation")
        return probed(settings, best)

    proof = _measured(Proof("igpt-probe", "accuracy of a linear probe", None, None, bar=1.0), data, out, seed, compare)
    return proof if proof.baseline is None else replace(proof, bar=proof.baseline + MORE)


def _measured(
    proof: Proof,
    data: Path | None,
    out: Path,
    seed: int,
    compare: Callable[[NextPixel, str, Path], tuple[float, float]],
) -> Proof:
    """``proof`` with what ``compare`` measures, and its baseline; or why it is skipped."""
    try:
        folder = str(cifar10(data))
    except SettingError as error:
        return replace(proof, reason=str(error))
    began, run = time.perf_counter(), out.parent / "igpt"
    if proof.name == "igpt" or not (run / RECORD).is_file():
        pretrain(small_igpt(folder, run, seed))
    learner = objective.load(run)
    assert isinstance(learner, NextPixel)
    measured, baseline = compare(learner, folder, run)
    return replace(proof, measured=measured, baseline=baseline, seconds=round(time.perf_counter() - began, 1))


def small_igpt(data: str, out: Path, seed: int) -> Pretrain:
    """The smallest iGPT for as many images as there are."""
    return Pretrain(
        data,
        "next-pixel",
        out,
        overwrite=True,
        model="igpt-nano",
        steps=3200,
        batch_size=16,
        learning_rate=2e-3,
        seed=seed,
    )


def nats(learner: NextPixel, data: str, run: Path) -> tuple[float, float]:
    """Nats a pixel of test images, of the model and of the left-pixel bigram."""
    dataset = open_dataset(data)
    measured = evaluate(Evaluate(str(run), split="test", precision="float32"))["loss"]
    baseline = bigram(
        colours_of(learner, dataset, "train"), colours_of(learner, dataset, "test"), len(learner.backbone.palette)
    )
    say(f"igpt: {measured:.4f} nats a pixel, left-pixel bigram {baseline:.4f}")
    return measured, baseline


def bigram(train: Tensor, test: Tensor, colours: int) -> float:
    """Nats a pixel of ``test (M, h, w)`` by how often each colour followed each in the rows of ``train``, plus one.

    The first pixel of a row follows the edge, which is a colour of its own here.
    """

    def pairs(images: Tensor) -> Tensor:
        return F.pad(images, (1, 0), value=colours)[:, :, :-1] * colours + images

    counts = torch.bincount(pairs(train).flatten(), minlength=(colours + 1) * colours).view(colours + 1, colours) + 1.0
    chances = (counts / counts.sum(dim=1, keepdim=True)).log().flatten()
    return float(-chances[pairs(test).flatten()].mean())


def completed(learner: NextPixel, data: str, run: Path) -> tuple[float, float]:
    """Mean squared error of pixels in 0 … 1 over lower halves: painted, and the last given row repeated."""
    images, _ = as_seen(open_dataset(data), "test", learner.preprocess)
    images = images[:: len(images) // COMPLETED]
    numbers, half = learner.backbone.numbers(images * 2 - 1), images.shape[2] // 2
    choose = partial(sample, generator=torch.Generator().manual_seed(0))
    given = numbers[:, : numbers.shape[1] // 2].repeat_interleave(OFTEN, dim=0)
    with torch.inference_mode():
        painted = torch.cat([learner.backbone.images(learner.paint(part, choose)) for part in given.split(AT_ONCE)])
    painted = painted.unflatten(0, (-1, OFTEN)).mean(dim=1) / 2 + 0.5

    def error(guess: Tensor) -> float:
        return (guess - images[:, :, half:]).square().mean().item()

    measured, baseline = error(painted[:, :, half:]), error(images[:, :, half - 1 : half])
    say(f"igpt-completion: painted {measured:.4f}, last row repeated {baseline:.4f}")
    return measured, baseline


def colours_of(learner: NextPixel, dataset: Dataset, split: SplitName) -> Tensor:
    """All images of a split as numbers of colours, ``(M, h, w)`` int64."""
    images, _ = as_seen(dataset, split, learner.preprocess)
    return learner.backbone.numbers(images * 2 - 1).unflatten(1, learner.preprocess.size)
