"""What can be asked of `vitrail info` and `vitrail models`."""

from __future__ import annotations

from dataclasses import dataclass

from tyro.conf import Positional

from vitrail.recipes.settings import Changes, LeftOpen


@dataclass(frozen=True)
class Info:
    """Say what something is: a model layer by layer, a run, what is in a file of weights, what was found in a data set.

    Examples:
      vitrail info vit-s16
      vitrail info gpt2
      vitrail info runs/clothing
      vitrail info hf:google/vit-base-patch16-224
      vitrail info checkpoint.pth --layout torchvision --model vit-b16
      vitrail info clothing.onnx
      vitrail info photos/ --json
    """

    subject: Positional[str]
    """A model's name, a run's folder, weights (hf:ORG/NAME, timm:NAME, a file or folder), or data."""
    config: Changes = ()
    """Changes to a model, such as: patch_size=8 image_size=64,64."""
    layout: LeftOpen[str] = None
    """Whose names the tensors of a file have, where it does not say so: timm, torchvision, google, paper …"""
    model: LeftOpen[str] = None
    """What model the file is, where it does not say so."""
    format: LeftOpen[str] = None
    """How the data are stored, where looking at them does not tell: folder, csv, parquet …"""
    image_column: LeftOpen[str] = None
    """The column of a table that holds the images' paths; left out: image, path, file …"""
    label_column: LeftOpen[str] = None
    """The column of a table that holds the labels; left out: label, class, category …"""
    json: bool = False
    """Print one JSON document."""


@dataclass(frozen=True)
class Models:
    """List the models of images and of text: what each costs, and how good its published weights are.

    Examples:
      vitrail models
      vitrail models 'vit-*' --json
      vitrail models 'gpt*'
    """

    pattern: Positional[str] = "*"
    """A name, or a pattern such as 'resnet-*'."""
    json: bool = False
    """Print one JSON document."""
