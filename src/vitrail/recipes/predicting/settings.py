"""What can be asked of `vitrail predict`."""

from __future__ import annotations

from dataclasses import dataclass

from tyro.conf import Positional

from vitrail.choices import Precision
from vitrail.recipes.settings import UNSTATED, Images, LeftOpen, Stated


@dataclass(frozen=True)
class Predict:
    """Say what is in images, or of texts what the model was trained to say: with scores, the most probable first.

    Examples:
      vitrail predict runs/clothing shirt.jpg
      vitrail predict runs/clothing photos/ 'more/*.png' --json
      vitrail predict hf:google/vit-base-patch16-224 cat.jpg
      vitrail predict clothing.onnx shirt.jpg
      vitrail predict hf:google/vit-base-patch16-224 photos/ --pack
      find . -name '*.jpg' | vitrail predict runs/clothing -
      vitrail predict runs/reviews "a quiet, moving film" more-reviews.txt
      vitrail predict runs/squad "Who wrote it? ||| The book was written by Ada Lovelace in 1843."
    """

    run: Positional[str]
    """A run's folder; published weights: hf:ORG/NAME, timm:NAME, or a file (with --layout and --model); or what
    `vitrail export --to onnx` wrote."""
    images: Positional[Images]
    """Files, folders, patterns; or - for an image, or a list of paths, on standard input. For a model of text: texts
    (pieces with ||| between), files with a text in each line, tables; or - for lines on standard input."""
    top: int = 5
    """How many labels to give for each image."""
    text_column: LeftOpen[str] = None
    """The column of a table that holds the texts; left out: text, sentence, content …"""
    pair_column: LeftOpen[str] = None
    """The column of the second text of each pair; left out: sentence2, hypothesis …"""
    batch_size: int = 32
    """Images computed at once; changes the speed only."""
    pack: bool = False
    """Keep each image's proportions, and compute images of several sizes as one row without padding (ViT, DeiT, DINOv3,
    RoPE-ViT)."""
    pack_tokens: LeftOpen[int] = None
    """Most patches of an image with --pack; left out: as many as the model's own image size has."""
    workers: LeftOpen[int] = None
    """Processes that read images; left out: chosen for the machine."""
    merge: int = 0
    """Token merging: pairs of tokens that become one in each block of a vision transformer. Faster, at some cost in
    accuracy, which `vitrail evaluate --merge` tells; try 8 to 16 at 224 pixels."""
    device: str = "auto"
    """cpu, cuda, mps, or auto for the best there is."""
    precision: Precision = "auto"
    """Format of matrix products; auto is bfloat16 where the machine has it."""
    stated: Stated = UNSTATED
    json: bool = False
    """Print one JSON document: a list of {"image", "predictions": [{"label", "score"}], "error"}."""
