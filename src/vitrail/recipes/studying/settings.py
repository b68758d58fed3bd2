"""What can be asked of `vitrail study`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from vitrail.choices import Precision
from vitrail.recipes.settings import LeftOpen


@dataclass(frozen=True)
class Study:
    """Train many small networks that differ in one thing, and draw what it does: how much data, or how much is masked.

    Examples:
      vitrail study data-scaling photos/
      vitrail study data-scaling photos/ --seeds 0 1 2 --shares 0.1 0.3 1 --epochs 20
      vitrail study masking photos/
      vitrail study --resume studies/photos-data-scaling
    """

    kind: Positional[Literal["data-scaling", "masking"]] = "data-scaling"
    """data-scaling: a ViT and a ResNet that cost the same, on growing shares of the data; masking: MAE, hiding more
    and more of each image."""
    data: Positional[LeftOpen[str]] = None
    """A folder of class folders, a table of paths and labels, or another kind of data that `vitrail info` knows."""
    out: LeftOpen[Path] = None
    """The study's folder, which holds a folder of each run; left out: studies/DATA-KIND."""
    resume: LeftOpen[Path] = None
    """Go on with this study: finished runs are not repeated, the one that was stopped goes on where it was."""
    overwrite: bool = False
    """Replace the study that is in --out, and all its runs."""
    shares: tuple[float, ...] = (0.0625, 0.125, 0.25, 0.5, 1.0)
    """Shares of the training images, for data-scaling."""
    seeds: tuple[int, ...] = (0,)
    """Every run is repeated with each of these seeds: other images of a share, other weights to begin with."""
    size: Literal["small", "large"] = "small"
    """Of the networks of data-scaling: small, 21 million operations an image of 64 pixels; large, those of a
    ResNet-50."""
    image_size: LeftOpen[int] = None
    """Side of the images in pixels, as the networks see them; left out: chosen for the data and the size."""
    epochs: LeftOpen[int] = None
    """How many times to go through as many images as there are; left out: chosen for the data."""
    batch_size: LeftOpen[int] = None
    """Images in a step; left out: chosen for the data."""
    learning_rate: float = 1e-3
    """Peak learning rate of all runs."""
    format: LeftOpen[str] = None
    """How DATA is stored, where looking at it does not tell: folder, csv, parquet …"""
    image_column: LeftOpen[str] = None
    """The column of a table that holds the images' paths; left out: image, path, file …"""
    label_column: LeftOpen[str] = None
    """The column of a table that holds the labels; left out: label, class, category …"""
    workers: LeftOpen[int] = None
    """Processes that read images; changes the speed only. Left out: chosen for the machine."""
    device: str = "auto"
    """cpu, cuda, mps, or auto for the best there is."""
    precision: Precision = "auto"
    """Format of matrix products; auto is bfloat16 where the machine has it."""
    json: bool = False
    """Print the figures as one JSON document."""
