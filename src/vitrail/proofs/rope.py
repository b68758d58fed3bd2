"""Rotary positions carry over to a larger image, learned ones less so: CIFAR-10 at half as many pixels again."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

from vitrail.console import say
from vitrail.errors import SettingError
from vitrail.proofs.classifier import from_scratch
from vitrail.proofs.data import cifar10
from vitrail.proofs.proof import Proof
from vitrail.recipes.evaluating.evaluate import evaluate
from vitrail.recipes.evaluating.settings import Evaluate
from vitrail.recipes.settings import Stated
from vitrail.recipes.training.train import train

SHAPE = ("width=128", "depth=6", "heads=4", "mlp=256", "patch_size=4")
TRAINED, LARGER = 32, 48  # pixels: 8x8 patches, and 12x12


def prove(data: Path | None, out: Path, seed: int = 0) -> Proof:
    """Accuracy at 48 pixels of two networks trained at 32: with rotary positions, and (the baseline) learned ones.

    Both are alike but for their positions. The rotary ones are DINOv3's, whose coordinates run from -1 to 1 whatever
    the grid; the learned ones are resampled to the larger grid. With the integer coordinates of Heo et al. (2024) so
    small a network, trained on 8x8 patches, does worse at 12x12 than resampled positions.
    """
    proof = Proof("rope", "accuracy at 1.5 times the image size", measured=None, baseline=None, bar=0.48)
    try:
        folder = str(cifar10(data))
    except SettingError as error:
        return replace(proof, reason=str(error))
    began = time.perf_counter()
    rotary = accuracy_at_larger_size(folder, out / "rotary", (*SHAPE, "position=rotary"), seed)
    learned = accuracy_at_larger_size(folder, out / "learned", (*SHAPE, "position=learned"), seed)
    return replace(proof, measured=rotary, baseline=learned, seconds=round(time.perf_counter() - began, 1))


def accuracy_at_larger_size(data: str, out: Path, config: tuple[str, ...], seed: int) -> float:
    """Train at one size, measure at the larger one."""
    trained = train(replace(from_scratch(out, "vit-s16", config, TRAINED, epochs=10, seed=seed), data=data))["top1"]
    larger = evaluate(Evaluate(str(out), data, split="test", stated=Stated(image_size=LARGER)))["top1"]
    say(f"{config[-1]}: {trained:.2%} at {TRAINED} pixels, {larger:.2%} at {LARGER}")
    return float(larger)
