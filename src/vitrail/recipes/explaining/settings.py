"""What can be asked of `vitrail explain`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from tyro.conf import Positional

from vitrail.recipes.settings import UNSTATED, Changes, Images, LeftOpen, Stated

Map = Literal["attention", "rollout", "relevance", "gradcam", "gradcam++", "integrated-gradients", "occlusion"]
Inside = Literal["distances", "positions", "filters", "parts", "merged", "nearest"]
Method = Literal[Map, Inside, "reconstruct"]
KernelName = Literal["identity", "edge-1", "edge-2", "edge-3", "sharpen", "box-blur"]


@dataclass(frozen=True)
class Explain:
    """Show where in images a model finds what it says, what it has learned to see, or what it paints over gaps.

    Examples:
      vitrail explain runs/clothing shirt.jpg
      vitrail explain runs/clothing photos/*.jpg --method gradcam --class dress
      vitrail explain runs/clothing shirt.jpg --all --out sheet.png
      vitrail explain runs/clothing shirt.jpg --method attention --layer 1 --head 2 --json
      vitrail explain runs/clothing shirt.jpg --method nearest --data photos/
      vitrail explain runs/clothing --method positions
      vitrail explain shirt.jpg --method filters --kernel edge-2 --padding 1 --pool 2
      vitrail explain runs/photos-mae photos/*.jpg --method reconstruct --mask-ratio 0.9
    """

    run: Positional[str]
    """A run's folder; or published weights: hf:ORG/NAME, timm:NAME, or a file (with --layout and --model). With
    --kernel there is no model: this is an image, too."""
    images: Positional[Images] = ()
    """Files, folders, patterns; or - for an image, or a list of paths, on standard input. The first 16 are drawn. For
    positions and filters none is needed."""
    method: Method = "attention"
    """attention: what one layer looks at; rollout: what arrives through all layers; relevance: attention that speaks
    for a class; gradcam, gradcam++: where the last features speak for it; integrated-gradients: what each pixel adds to
    it; occlusion: what it loses while a place is covered. distances: how far heads look; positions: how alike the
    positions are; filters: what the first layer looks for, or what one --kernel does; parts: features as colours;
    merged: which patches become one token with --merge; nearest: the images of --data that are most like it;
    reconstruct: hidden patches as a masked autoencoder paints them."""
    all: bool = False
    """One sheet with all methods for each image; of several images --out is a folder."""
    of_class: Annotated[LeftOpen[str], tyro.conf.arg(name="class")] = None
    """The class that is explained, its name or its number from 0; left out: the most probable one."""
    layer: LeftOpen[int] = None
    """The layer, counted from 1, where attention is read or where rollout ends; left out: the last."""
    head: LeftOpen[int] = None
    """attention: one head, counted from 1; left out: the mean of all."""
    merge: int = 0
    """merged: pairs of tokens that become one in each block, as in `vitrail predict --merge`."""
    data: LeftOpen[str] = None
    """nearest: the images to compare with, such as the training data: whatever `vitrail train` takes."""
    kernel: LeftOpen[KernelName] = None
    """filters: apply this kernel to the images, as the first lesson on convolution does; no model is needed."""
    padding: int = 0
    """filters --kernel: pixels of black around the image."""
    stride: int = 1
    """filters --kernel: pixels from one place of the kernel to the next."""
    pool: int = 1
    """filters --kernel: side of the squares of which max-pooling keeps the largest value; 1 for none."""
    out: Path = Path("explanation.png")
    """The picture, a PNG file; with --all and several images the folder of the pictures."""
    mask_ratio: LeftOpen[float] = None
    """reconstruct: the share of patches that is hidden; left out: that of training."""
    seed: int = 0
    """reconstruct: another seed hides other patches."""
    options: Changes = ()
    """reconstruct: what a file does not say of its pre-training, such as: normalise_patches=false."""
    device: str = "auto"
    """cpu, cuda, mps, or auto for the best there is."""
    stated: Stated = UNSTATED
    json: bool = False
    """Print one JSON document. Of heat maps a list of {"image", "label", "score", "class", "map"}: what the model says,
    the class that is explained, and rows of numbers from 0 to 1 for the pixels that the model sees."""
