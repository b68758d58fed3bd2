"""What can be asked of `vitrail export`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from vitrail.recipes.settings import UNSTATED, LeftOpen, Stated


@dataclass(frozen=True)
class Export:
    """Write a trained model as one file that runs elsewhere, or as a folder of timm's or Transformers', and check it.

    Examples:
      vitrail export runs/clothing --to onnx
      vitrail export runs/clothing photos/ --to onnx --int8 --out clothing-int8.onnx
      vitrail export runs/clothing --to program --out clothing.pt2
      vitrail export runs/clothing --to timm
      vitrail export runs/clothing --to transformers --out clothing-vit
    """

    run: Positional[str]
    """A run's folder; or published weights: hf:ORG/NAME, timm:NAME, or a file (with --layout and --model)."""
    to: Literal["onnx", "program", "timm", "transformers"]
    """onnx: a file for onnxruntime and others; program: a file for torch.export.load; timm, transformers: a folder for
    timm.create_model("local-dir:FOLDER", pretrained=True), or from_pretrained("FOLDER")."""
    out: LeftOpen[Path] = None
    """What is written; left out: RUN.onnx, RUN.pt2, RUN-timm or RUN-transformers."""
    data: Positional[LeftOpen[str]] = None
    """onnx, program: labelled images to measure on, before and after; left out: drawn scenes without labels."""
    int8: bool = False
    """onnx: weights of 8 bits, a quarter of the size; for size, it need not be faster."""
    merge: int = 0
    """onnx, program: token merging, for a faster file of a vision transformer; as of `vitrail evaluate`."""
    format: LeftOpen[str] = None
    """How DATA is stored, where looking at it does not tell: folder, csv, parquet …"""
    image_column: LeftOpen[str] = None
    """The column of a table that holds the images' paths; left out: image, path, file …"""
    label_column: LeftOpen[str] = None
    """The column of a table that holds the labels; left out: label, class, category …"""
    overwrite: bool = False
    """Write over a file, or into a folder that is not empty."""
    stated: Stated = UNSTATED
    json: bool = False
    """Print one JSON document: the report; of a folder {"folder", "to", "model", "max_difference"}."""
