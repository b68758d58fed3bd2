"""The baseline of the proof of MAE, and how both errors are counted."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vitrail import models
from vitrail.data.dataset import open_dataset
from vitrail.data.preprocess import Preprocess
from vitrail.objectives import MAE
from vitrail.proofs import mae as proofs
from vitrail.proofs.mae import errors, interpolate, small_mae
from vitrail.proofs.prove import PROOFS
from vitrail.recipes.pretraining.settings import Pretrain

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


def test_colours_are_weighted_by_the_inverse_cube_of_the_distance() -> None:
    torch.manual_seed(0)
    patches, seen = torch.randn(2, 6, 16, 3), torch.tensor([[0, 5], [1, 2]])
    found = interpolate(patches, (2, 3), seen)
    assert found.shape == (2, 6, 1, 3)
    for image in range(2):
        for number in set(range(6)) - set(seen[image].tolist()):
            weights = [math.dist(divmod(number, 3), divmod(other, 3)) ** -3 for other in seen[image].tolist()]
            colours = [patches[image, other].mean(dim=0) for other in seen[image].tolist()]
            expected = sum(w * c for w, c in zip(weights, colours, strict=True)) / sum(weights)
            torch.testing.assert_close(found[image, number, 0], expected)


@pytest.fixture
def noise(tmp_path: Path) -> Path:
    """Pictures whose pixels know nothing of each other."""
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for name in ("a", "b"):
            (tmp_path / split / name).mkdir(parents=True)
            for number in range(30):
                pixels = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / split / name / f"{number}.png")
    return tmp_path


def an_mae() -> MAE:
    shape = {"width": 24, "depth": 1, "heads": 3, "mlp": 24, "image_size": (16, 16), "patch_size": 4}
    backbone = models.create("vit-micro", **{**MAE.usual_config, **shape})
    options = MAE.Options(normalise_patches=False)
    return MAE("vit-micro", backbone, Preprocess((16, 16), mean=MEAN, std=STD), options).eval()


def test_of_noise_no_more_is_known_than_its_mean(noise: Path) -> None:
    learner = an_mae()
    middle = (0.5 - torch.tensor(MEAN)) / torch.tensor(STD)
    learner.paint = lambda images, seen: middle.repeat(16).expand(len(images), 16, -1)  # type: ignore[method-assign]
    painted, interpolated = errors(learner, open_dataset(str(noise)))
    assert painted == pytest.approx(1, abs=0.01)
    assert 1 < interpolated < 1.06  # a mean of 16 or more pixels of noise adds at most 1 / 16 of its variance


def test_whoever_paints_the_original_has_no_error(noise: Path) -> None:
    learner = an_mae()
    learner.paint = lambda images, seen: learner.targets(images)  # type: ignore[method-assign]
    assert errors(learner, open_dataset(str(noise)))[0] < 1e-9


def test_from_training_to_the_figures(noise: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def tiny(out: Path, seed: int, options: tuple[str, ...]) -> Pretrain:
        settings = small_mae(out, seed, options)
        shape = ("width=24", "depth=1", "heads=3", "mlp=24")
        return replace(settings, config=shape, steps=2, batch_size=8, workers=0, device="cpu")

    monkeypatch.setattr(proofs, "cifar10", lambda data: noise)
    monkeypatch.setattr(proofs, "small_mae", tiny)
    proof = PROOFS["mae"](None, tmp_path / "out")
    assert proof.measured is not None
    assert proof.baseline is not None
    assert proof.seconds > 0
    assert proof.measured > 0.9  # of noise
    assert proof.passed is False
