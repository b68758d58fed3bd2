"""MAE paints what it does not see, and so learns what is in an image: CIFAR-10 with three quarters of it hidden.

Two small networks, for what paints best does not know most: standardised patches and a deeper decoder make better
features (He et al. 2022, table 1), and tell nothing of a patch's colour.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from vitrail.console import say
from vitrail.data.dataset import open_dataset
from vitrail.data.loader import EvaluationBatches
from vitrail.data.sample import Batch
from vitrail.data.source import Dataset
from vitrail.errors import SettingError
from vitrail.nn.rope import patch_numbers
from vitrail.objectives.mae import MAE, patchify
from vitrail.proofs.data import cifar10
from vitrail.proofs.probed import learn_and_probe
from vitrail.proofs.proof import Proof
from vitrail.recipes.pretraining.pretrain import pretrain
from vitrail.recipes.pretraining.settings import Pretrain
from vitrail.weights import objective

POWER = 3  # of the distance; 2 and 4 give worse colours
PAINTS = ("normalise_patches=false", "decoder_width=96", "decoder_depth=2")
LEARNS = ("decoder_width=96", "decoder_depth=4")
STEPS = {PAINTS: 1000, LEARNS: 900}


def prove(data: Path | None, out: Path, seed: int = 0) -> Proof:
    """Error on hidden patches of test images, as a share of the variance of their pixels.

    The baseline, on the same masks, gives each hidden patch one colour: the mean of those that are seen, weighted by
    the inverse cube of their distance.
    """
    proof = Proof("mae", "error on hidden patches", measured=None, baseline=None, bar=0.42, better="lower")
    try:
        settings = replace(small_mae(out, seed, PAINTS), data=str(cifar10(data)))
    except SettingError as error:
        return replace(proof, reason=str(error))
    began = time.perf_counter()
    pretrain(settings)
    measured, baseline = painted(settings)
    say(f"mae: {measured:.4f}, interpolated colours {baseline:.4f}")
    return replace(proof, measured=measured, baseline=baseline, seconds=round(time.perf_counter() - began, 1))


def prove_probe(data: Path | None, out: Path, seed: int = 0) -> Proof:
    """Accuracy of a linear classifier on the encoder's features, and on those of the same encoder before training."""
    return learn_and_probe("mae-probe", data, small_mae(out, seed, LEARNS))


def small_mae(out: Path, seed: int, options: tuple[str, ...]) -> Pretrain:
    """About a million weights, for six or seven passes through 9,000 images."""
    return Pretrain(
        objective="mae",
        out=out,
        overwrite=True,
        model="vit-micro",
        config=("depth=4", "mlp=512"),
        options=options,
        steps=STEPS[options],
        batch_size=64,
        learning_rate=1.5e-3,
        seed=seed,
    )


def painted(settings: Pretrain) -> tuple[float, float]:
    """Error on the hidden patches of test images, of what is painted and of interpolated colours."""
    assert settings.out is not None
    learner = objective.load(settings.out)
    assert isinstance(learner, MAE)
    return errors(learner, open_dataset(str(settings.data)))


@torch.inference_mode()
def errors(learner: MAE, dataset: Dataset) -> tuple[float, float]:
    """Mean squared error over the hidden patches of what is painted, and of interpolated colours.

    Each channel's as a share of the variance of its pixels, over all test images.
    """
    batches = EvaluationBatches(dataset.splits["test"], len(dataset.classes), learner.preprocess, 100)
    rows = (squares(learner, batches[number][0]) for number in range(len(batches)))
    paintings, colours, values = (torch.cat(parts) for parts in zip(*rows, strict=True))
    variance = values.var(dim=0)
    return (paintings.mean(dim=0) / variance).mean().item(), (colours.mean(dim=0) / variance).mean().item()


def squares(learner: MAE, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Squared errors of both, one row a hidden patch, and all pixels; each ``(…, C)``."""
    assert batch.draws is not None
    images = learner.normalized(batch.images)
    seen, hidden = learner.order(batch.draws).tensor_split([learner.seen], dim=1)
    shape = (-1, images.shape[1])  # of a patch: pixels, channels
    patches = patchify(images, learner.backbone.config.patch_size).unflatten(2, shape)
    answers = (
        learner.pixels(learner.paint(images, seen), images).unflatten(2, shape),
        interpolate(patches, learner.backbone.grid, seen),
    )
    both = [
        (answer - patches).square().mean(dim=2).gather(1, _along(hidden, patches)).flatten(0, 1) for answer in answers
    ]
    return both[0], both[1], patches.flatten(0, 2)


def interpolate(patches: Tensor, grid: tuple[int, int], seen: Tensor) -> Tensor:
    """One colour for each patch ``(B, N, 1, C)`` from those that are seen, of pixels ``(B, N, p · p, C)``."""
    places = patch_numbers(grid)
    distances = torch.cdist(places, places).clamp_min(1e-3)[seen]  # B, n, N
    weights = distances**-POWER
    colours = patches.mean(dim=2).gather(1, _along(seen, patches))
    return ((weights / weights.sum(dim=1, keepdim=True)).transpose(1, 2) @ colours).unsqueeze(2)


def _along(numbers: Tensor, patches: Tensor) -> Tensor:
    return numbers.unsqueeze(-1).expand(-1, -1, patches.shape[-1])
