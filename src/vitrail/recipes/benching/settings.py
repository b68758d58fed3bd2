"""What can be asked of `vitrail bench`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import tyro
from tyro.conf import Positional

from vitrail.choices import Precision
from vitrail.recipes.settings import LeftOpen

Models = Annotated[tuple[str, ...], tyro.conf.arg(metavar="MODEL...", help_behavior_hint="(required)")]


@dataclass(frozen=True)
class Bench:
    """Measure models on this machine: images a second, latency, memory, operations, and the share of its limit.

    Each figure is the median of repeats, in a process of its own. Nothing else should run meanwhile.

    Examples:
      vitrail bench vit-s16 resnet-50
      vitrail bench vit-b16 --batch-size 8 --mode inference --precision float32
      vitrail bench runs/clothing hf:google/vit-base-patch16-224 clothing.onnx --mode inference
      vitrail bench vit-s16 --data photos/ --json
    """

    models: Positional[Models]
    """Names from `vitrail models`, which get random weights; a run's folder, hf:ORG/NAME, timm:NAME, a .onnx file."""
    mode: Literal["inference", "training", "both"] = "both"
    """What is measured."""
    batch_size: int = 8
    """Images computed at once."""
    image_size: LeftOpen[int] = None
    """Side of the images in pixels; left out: each model's own."""
    data: LeftOpen[str] = None
    """Also measure how fast one core reads and augments these images: whatever `vitrail train` takes."""
    seconds: float = 5.0
    """How long to measure each figure; slow work is repeated five times all the same."""
    device: str = "auto"
    """cpu, cuda, mps, or auto for the best there is."""
    precision: Precision = "auto"
    """Format of matrix products; auto is bfloat16 where the machine has it."""
    json: bool = False
    """Print one JSON document."""
