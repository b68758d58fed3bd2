"""A vision transformer learns better from a convolutional teacher: DeiT's distillation token, on CIFAR-10."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

from vitrail.console import say
from vitrail.errors import SettingError
from vitrail.proofs.classifier import from_scratch
from vitrail.proofs.data import cifar10
from vitrail.proofs.proof import Proof
from vitrail.recipes.training.settings import Train
from vitrail.recipes.training.train import train

SHAPE = ("width=128", "depth=6", "heads=4", "mlp=256", "patch_size=4")


def prove(data: Path | None, out: Path, seed: int = 0) -> Proof:
    """Test accuracy of a student with a teacher, and (the baseline) of the same student without one.

    The teacher is a ResNet-20 trained on the same images (Touvron et al. 2021, section 4: a convolutional network is a
    better teacher than a transformer); the student takes its hard labels.
    """
    proof = Proof("deit", "accuracy on CIFAR-10's test images", measured=None, baseline=None, bar=0.54)
    try:
        folder = str(cifar10(data))
    except SettingError as error:
        return replace(proof, reason=str(error))
    began = time.perf_counter()
    teacher = from_scratch(out / "teacher", "resnet-20", (), image_size=32, epochs=15, seed=seed)
    student = from_scratch(out / "alone", "deit-ti16-distilled", SHAPE, image_size=32, epochs=15, seed=seed)
    accuracy = {
        "teacher": top1(teacher, folder),
        "alone": top1(student, folder),
        "taught": top1(replace(student, out=out / "taught", teacher=str(out / "teacher")), folder),
    }
    say(f"deit: teacher {accuracy['teacher']:.2%}, student {accuracy['taught']:.2%}, alone {accuracy['alone']:.2%}")
    return replace(
        proof,
        measured=accuracy["taught"],
        baseline=accuracy["alone"],
        seconds=round(time.perf_counter() - began, 1),
    )


def top1(settings: Train, data: str) -> float:
    """Train; the accuracy on the test images."""
    return float(train(replace(settings, data=data))["top1"])
