"""What can be asked of `vitrail evaluate`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from vitrail.choices import MAX_UNREADABLE, Precision
from vitrail.recipes.settings import UNSTATED, LeftOpen, Stated


@dataclass(frozen=True)
class Evaluate:
    """Measure a trained model on held-out images: accuracy, each class, calibration; with pictures in RUN/plots.

    Examples:
      vitrail evaluate runs/clothing
      vitrail evaluate runs/clothing other-photos/ --json
      vitrail evaluate hf:google/vit-base-patch16-224 imagenet/val
      vitrail evaluate clothing.onnx other-photos/
      vitrail evaluate runs/clothing panoramas/ --pack
    """

    run: Positional[str]
    """A run's folder; published weights: hf:ORG/NAME, timm:NAME, or a file (with --layout and --model); or what
    `vitrail export --to onnx` wrote."""
    data: Positional[LeftOpen[str]] = None
    """Images to measure on; left out: those that training held back."""
    probe: Literal["none", "linear", "knn"] = "none"
    """Measure the frozen features instead: what a linear classifier, or nearest neighbours, make of them on DATA."""
    split: Literal["auto", "train", "validation", "test"] = "auto"
    """Which part of the data; auto is test where there is one, else validation, else all."""
    format: LeftOpen[str] = None
    """How DATA is stored, where looking at it does not tell: folder, csv, parquet …"""
    image_column: LeftOpen[str] = None
    """The column of a table that holds the images' paths; left out: image, path, file …"""
    label_column: LeftOpen[str] = None
    """The column of a table that holds the labels; left out: label, class, category …"""
    text_column: LeftOpen[str] = None
    """The column of a table that holds the texts; several with commas between; a number in a table without a header."""
    pair_column: LeftOpen[str] = None
    """The column of the second text of each pair; left out: sentence2, hypothesis …"""
    out: LeftOpen[Path] = None
    """Where figures and pictures go; left out: for its own data the run's folder, in it one for --merge or --pack; for
    others nowhere."""
    batch_size: int = 64
    """Images computed at once; changes the speed only."""
    pack: bool = False
    """Keep each image's proportions, and compute images of several sizes as one row without padding (ViT, DeiT, DINOv3,
    RoPE-ViT)."""
    pack_tokens: LeftOpen[int] = None
    """Most patches of an image with --pack; left out: as many as the model's own image size has."""
    workers: LeftOpen[int] = None
    """Processes that read images; left out: chosen for the machine."""
    cache: str = "none"
    """Keep the images as the model sees them for the next time: none; auto, in at most a quarter of the disk's free
    space; or a size such as 4GiB. `vitrail cache` shows what is kept."""
    max_unreadable: float = MAX_UNREADABLE
    """Share of images that may be unreadable before this stops."""
    merge: int = 0
    """Token merging: pairs of tokens that become one in each block of a vision transformer. Faster, at some cost in
    accuracy, which `vitrail evaluate --merge` tells; try 8 to 16 at 224 pixels."""
    device: str = "auto"
    """cpu, cuda, mps, or auto for the best there is."""
    precision: Precision = "auto"
    """Format of matrix products; auto is bfloat16 where the machine has it."""
    stated: Stated = UNSTATED
    json: bool = False
    """Print the figures as one JSON document."""
