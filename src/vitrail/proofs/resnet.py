"""Why shortcuts: a deep plain network has a higher training loss than the same one with them (He et al. 2016)."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from statistics import mean

from vitrail.console import say
from vitrail.errors import SettingError
from vitrail.proofs.data import cifar10
from vitrail.proofs.proof import Proof
from vitrail.recipes.training.settings import Train
from vitrail.recipes.training.train import train
from vitrail.train.log import read_log

EPOCHS = 4
NARROW = ("width=8", "depths=9,9,9")  # 56 layers, with half the channels of the paper's, which cost four times as much


def prove(data: Path | None, out: Path, seed: int = 0) -> Proof:
    """Training loss in the last of a few epochs on CIFAR-10, of 56 layers with shortcuts and (the baseline) without.

    As in figure 6 of the paper: the plain network is not overfitted, it is harder to train.
    """
    proof = Proof("resnet", "training loss of 56 layers", measured=None, baseline=None, bar=1.9, better="lower")
    try:
        folder = str(cifar10(data))
    except SettingError as error:
        return replace(proof, reason=str(error))
    began = time.perf_counter()
    losses = {shortcut: training_loss(folder, out / shortcut, shortcut, seed) for shortcut in ("pad", "absent")}
    say(f"resnet: training loss {losses['pad']:.3f} with shortcuts, {losses['absent']:.3f} without")
    return replace(
        proof, measured=losses["pad"], baseline=losses["absent"], seconds=round(time.perf_counter() - began, 1)
    )


def training_loss(data: str, out: Path, shortcut: str, seed: int) -> float:
    """The mean training loss of the last epoch, of a network that is like the others but for its shortcuts."""
    train(
        Train(
            data,
            out=out,
            overwrite=True,
            model="resnet-56",
            config=(*NARROW, f"shortcut={shortcut}"),
            weights="none",
            epochs=EPOCHS,
            batch_size=128,
            optimizer="sgd",
            learning_rate=0.1,
            weight_decay=1e-4,
            label_smoothing=0.0,
            augment="light",
            seed=seed,
        )
    )
    records = [record for record in read_log(out / "metrics.jsonl") if record["kind"] == "train"]
    return mean(record["loss"] for record in records if record["epoch"] == EPOCHS)
