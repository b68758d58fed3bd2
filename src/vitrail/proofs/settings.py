"""What can be asked of `vitrail prove`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from vitrail.recipes.settings import LeftOpen, Names


@dataclass(frozen=True)
class Prove:
    """Show that each system works: train it on real data within minutes and compare with a strong baseline.

    Examples:
      vitrail prove
      vitrail prove lenet vit --data ~/datasets
      vitrail prove mae --seeds 0 1 2
    """

    names: Positional[Names] = ()
    """Which proofs; left out: all of them.
    - Images: lenet, resnet, bit, vit, deit, swin, pvt, t2t, rope.
    - Text: gpt, bert, bert-finetune, t5, transformer; and hopfield.
    - Without labels: mae, mae-probe, dino, simclr, igpt, igpt-completion, igpt-probe.
    - Of the program: explain, resume."""
    data: LeftOpen[Path] = None
    """Folder with the data sets; left out: $VITRAIL_DATA, else they are fetched from the Hugging Face Hub."""
    out: LeftOpen[Path] = None
    """Keep the runs here; left out: they are thrown away."""
    seeds: tuple[int, ...] = (0,)
    """Run each proof with each of these seeds."""
    json: bool = False
    """Print one JSON document: a list of {"name", "seed", "measured", "baseline", "bar", "better", "passed", "seconds"}
    and more."""
