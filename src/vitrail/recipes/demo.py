"""Demo: the main job on real data that comes with a library, in about a minute."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vitrail.choices import Precision
from vitrail.console import say
from vitrail.data.dataset import open_dataset
from vitrail.data.source import Subset
from vitrail.explain.draw import draw_maps
from vitrail.metrics import draw
from vitrail.recipes.explaining.images import explanations
from vitrail.recipes.training.settings import Train
from vitrail.recipes.training.train import train
from vitrail.tasks import Classification
from vitrail.weights.load import load

SHOWN = 9  # test images whose attention is drawn


@dataclass(frozen=True)
class Demo:
    """Train a small vision transformer on scikit-learn's handwritten digits, evaluate it, and show where it looks.

    Examples:
      vitrail demo
      vitrail demo --out runs/first --epochs 20
    """

    out: Path = Path("runs/demo")
    """The run's folder; a run that is there is replaced."""
    epochs: int = 60
    """How many times to go through the 1,300 or so training images."""
    device: str = "auto"
    """cpu, cuda, mps, or auto for the best there is."""
    precision: Precision = "auto"
    """Format of matrix products; auto is bfloat16 where the machine has it."""
    seed: int = 0
    """Another seed is another run."""
    json: bool = False
    """Print the figures as one JSON document."""


def demo(settings: Demo) -> dict[str, Any]:
    """Train on the digits, measure on the fifth that was held back, draw curves, mistakes and attention."""
    training = Train(data="digits", out=settings.out, overwrite=True, epochs=settings.epochs, seed=settings.seed)
    figures = train(replace(training, device=settings.device, precision=settings.precision))
    draw_attention_of(settings.out, settings.out / "plots" / "attention.png")
    say(f"trained and measured in {figures['seconds']:.0f} s: {figures['top1']:.2%} of the held-out digits are right")
    for name in ("curves", "confusion", "reliability", "per_class", "attention"):
        say(f"  {settings.out / 'plots' / name}.png")
    say(f"now your own images: vitrail train FOLDER; and what this model says: vitrail info {settings.out}")
    return figures


def draw_attention_of(run: Path, picture: Path) -> None:
    """A few test images, evenly spread, under what the model's last layer looks at."""
    task = load(run)
    assert isinstance(task, Classification)
    test = open_dataset("digits").splits["test"]
    some = Subset(test, range(0, len(test), len(test) // SHOWN)[:SHOWN])
    draw.save(draw_maps([panel for _, panel in explanations(task, some)]), picture)
