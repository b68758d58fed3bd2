"""Do explanations tell the truth? Where they point in scenes of which the truth is known, and what the model needs."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vitrail import atomic
from vitrail.console import progress, say
from vitrail.data.sample import Label
from vitrail.data.shapes import open_shapes
from vitrail.data.source import Source
from vitrail.explain.deletion import deletion, insertion
from vitrail.explain.maps import at_image_size, heat_maps, methods_of
from vitrail.metrics.pointing import hits
from vitrail.proofs.proof import Proof
from vitrail.recipes.training.settings import Train
from vitrail.recipes.training.train import train
from vitrail.tasks import Classification
from vitrail.weights.load import load

TRAINING = 10_000  # scenes
SCENES = 300  # of the test split, whose largest shape is to be found
BATCH = 25
GOOD_ENOUGH = 0.95  # accuracy; a model that is wrong has no right place to point to


class Explained(NamedTuple):
    """A model that is explained: changes to one of the table, its learning rate, the method that it is judged by."""

    config: tuple[str, ...]
    learning_rate: float
    judged: str


MODELS = {
    "vit-micro": Explained(("width=96", "depth=4", "heads=3", "mlp=192", "patch_size=8"), 1e-3, "relevance"),
    "resnet-18": Explained(("width=24", "depths=2,2", "stem=imagenet"), 2e-3, "gradcam"),
}

Maps = Callable[[Classification, Tensor, Tensor], Tensor]


def prove(data: Path | None, out: Path, seed: int = 0) -> Proof:
    """The share of scenes in which the strongest place of a map lies on the object: the worse of both `MODELS`.

    The scenes are those of ``shapes``, the class is that of the largest shape, and the models end at 8x8 places: a
    vision transformer, of which relevance is asked, and a residual network, for which Grad-CAM was made. The baseline
    is a random map as coarse. Figures of all methods, and of two maps that ask no model, are in ``explain.json``.
    """
    judged = " and ".join(f"{explained.judged} of {model}" for model, explained in MODELS.items())
    proof = Proof("explain", f"scenes in which {judged} hit the object", None, None, bar=0.90)
    began = time.perf_counter()
    figures: dict[str, dict[str, Any]] = {}
    for model in MODELS:
        accuracy = train(classifier(model, out / model, seed))["top1"]
        if accuracy < GOOD_ENOUGH:
            what = f"accuracy of {model}, which is to be explained"
            return replace(proof, what=what, measured=accuracy, baseline=1 / 6, bar=GOOD_ENOUGH)
        task = load(out / model)
        assert isinstance(task, Classification)
        methods = {name: measure(task.eval(), maps, name) for name, maps in candidates(task, seed).items()}
        figures[model] = {"accuracy": accuracy, "methods": methods}
    atomic.write_text(out / "explain.json", json.dumps(figures, indent=2) + "\n")
    hit = {model: of["methods"] for model, of in figures.items()}
    return replace(
        proof,
        measured=min(hit[model][explained.judged]["pointing"] for model, explained in MODELS.items()),
        baseline=max(methods["random"]["pointing"] for methods in hit.values()),
        seconds=round(time.perf_counter() - began, 1),
    )


def classifier(model: str, out: Path, seed: int) -> Train:
    """Fourteen times through scenes that are never cropped, for the object must stay the largest."""
    return Train(
        data=f"shapes:{TRAINING}",
        out=out,
        overwrite=True,
        model=model,
        config=MODELS[model].config,
        weights="none",
        image_size=64,
        epochs=14,
        batch_size=64,
        learning_rate=MODELS[model].learning_rate,
        augment="none",
        seed=seed,
    )


def candidates(task: Classification, seed: int) -> dict[str, Maps]:
    """All methods of explanation that the model has, and two that do not ask it."""

    def of(name: str) -> Maps:
        return lambda task, images, classes: heat_maps(task, images, name, classes)

    def random(task: Classification, images: Tensor, classes: Tensor) -> Tensor:
        return at_image_size(torch.rand(len(images), 8, 8, generator=generator), images)

    def colour(task: Classification, images: Tensor, classes: Tensor) -> Tensor:
        return at_image_size(contrast(images), images)

    generator = torch.Generator().manual_seed(seed)
    return {name: of(name) for name in methods_of(task.backbone)} | {"colour": colour, "random": random}


def contrast(images: Tensor) -> Tensor:
    """How far each place's colour is from the image's mean, ``(B, H / 8, W / 8)``: what stands out to any eye."""
    pixels = torch.nn.functional.avg_pool2d(images.float(), 8)
    return (pixels - pixels.mean(dim=(2, 3), keepdim=True)).square().sum(dim=1)


def measure(task: Classification, maps: Maps, name: str) -> dict[str, float]:
    """Pointing game, means of the deletion and of the insertion curve, and seconds an image."""
    test = open_shapes(f"shapes:{TRAINING}").splits["test"]
    rows: list[dict[str, NDArray[Any]]] = []
    seconds = 0.0
    with progress(name, SCENES, unit="image") as advance:
        for first in range(0, SCENES, BATCH):
            images, classes, boxes = scenes(task, test, range(first, min(first + BATCH, SCENES)))
            began = time.perf_counter()
            heat = maps(task, images, classes)
            seconds += time.perf_counter() - began
            curves = {"deletion": deletion, "insertion": insertion}
            row = {key: curve(task, images, heat, classes).mean(dim=1).numpy() for key, curve in curves.items()}
            rows.append({"pointing": hits(heat.numpy(), boxes), **row})
            advance(first + len(images))
    figures = {key: round(float(np.concatenate([row[key] for row in rows]).mean()), 4) for key in rows[0]}
    say(f"{name}: " + ", ".join(f"{key} {figure:.3f}" for key, figure in figures.items()))
    return figures | {"milliseconds": round(1000 * seconds / SCENES, 2)}


def scenes(task: Classification, source: Source, numbers: range) -> tuple[Tensor, Tensor, NDArray[np.float32]]:
    """Images ``(B, 3, H, W)`` uint8 as the model sees them, their classes ``(B,)``, the boxes ``(B, 4)`` of those."""
    samples = [task.preprocess.apply(source.sample(number))[0] for number in numbers]
    images = torch.from_numpy(np.stack([sample.image for sample in samples])).permute(0, 3, 1, 2).contiguous()
    classes = torch.tensor([sample.label.index for sample in samples if isinstance(sample.label, Label)])
    return images, classes, np.stack([sample.boxes.xyxy[0] for sample in samples if sample.boxes is not None])
