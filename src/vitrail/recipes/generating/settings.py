"""What can be asked of `vitrail generate`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import Positional

from vitrail.choices import Precision
from vitrail.recipes.settings import Changes, LeftOpen

Givens = Annotated[tuple[str, ...], tyro.conf.arg(metavar="[IMAGE...]", help_behavior_hint="(optional)")]


@dataclass(frozen=True)
class Generate:
    """Let a model write on from a prompt, fill the gaps of a text, or paint images and complete given ones.

    Examples:
      vitrail generate runs/book-next-token --prompt "It was a dark"
      vitrail generate hf:openai-community/gpt2 --prompt "The meaning of life is" --tokens 50 --top-p 0.9
      echo "Once upon a time" | vitrail generate runs/book-next-token --prompt - --count 3 --json
      vitrail generate runs/book-span --prompt "The <extra_id_0> sat on the <extra_id_1>." --beams 4
      vitrail generate runs/book-masked-token --prompt "The [MASK] sat on the mat."
      vitrail generate runs/photos-next-pixel --count 16 --out sheet.png
      vitrail generate runs/photos-next-pixel cat.jpg dog.jpg --out completed.png
    """

    run: Positional[str]
    """A run's folder; or published weights: hf:ORG/NAME, or a file (with --layout and --model)."""
    images: Positional[Givens] = ()
    """Images whose lower half a model of pixels paints again."""
    prompt: LeftOpen[str] = None
    """The text to go on with; - for standard input."""
    count: int = 1
    """How many to generate: texts of the prompt, images, or completions of each image."""
    tokens: int = 200
    """Most tokens of new text."""
    temperature: LeftOpen[float] = None
    """Below 1 what is likely gets likelier, 0 always takes the likeliest; left out: chosen for the model."""
    top_k: LeftOpen[int] = None
    """Choose among so many of the likeliest tokens only; left out: among all."""
    top_p: LeftOpen[float] = None
    """Choose among the likeliest tokens that together have this probability; left out: among all."""
    beams: int = 1
    """Instead of chance, search for the likeliest answer with so many at a time (models with an encoder)."""
    out: LeftOpen[Path] = None
    """The picture that is written; left out: generated.png."""
    layout: LeftOpen[str] = None
    """Whose names the tensors of a file have, where it does not say so: transformers, openai …"""
    model: LeftOpen[str] = None
    """What model a file is, where it does not say so: a name from `vitrail models`."""
    config: Changes = ()
    """How a file differs from that model, such as: depth=6 context=256."""
    tokenizer: LeftOpen[Path] = None
    """The tokenizer's file or folder, where it does not lie beside the weights."""
    device: str = "auto"
    """cpu, cuda, mps, or auto for the best there is."""
    precision: Precision = "auto"
    """Format of matrix products; auto is bfloat16 where the machine has it."""
    seed: int = 0
    """Another seed gives other texts and images."""
    json: bool = False
    """Print one JSON document, a list with one entry for each text or image."""
