"""What can be asked of `vitrail serve`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from vitrail.choices import MAX_PIXELS, Precision
from vitrail.recipes.settings import UNSTATED, LeftOpen, Stated


@dataclass(frozen=True)
class Serve:
    """Answer over HTTP what is in images and where the model sees it; with a web page to try it on.

    Examples:
      vitrail serve runs/clothing --open
      vitrail serve runs/clothing --port 0 --examples photos/
      VITRAIL_TOKEN=secret vitrail serve clothing.onnx --host 0.0.0.0
      curl -F image=@shirt.jpg http://127.0.0.1:8000/predict
    """

    run: Positional[str]
    """A run's folder; published weights: hf:ORG/NAME, timm:NAME, or a file (with --layout and --model); or what
    `vitrail export --to onnx` wrote."""
    host: str = "127.0.0.1"
    """The address to listen at: as it is, only this machine can ask; 0.0.0.0 lets others."""
    port: int = 8000
    """The port; 0 takes a free one, which is printed."""
    open: bool = False
    """Open the page in a browser."""
    examples: LeftOpen[Path] = None
    """A folder of images that the page offers to try."""
    token: LeftOpen[str] = None
    """What clients must send as Authorization: Bearer TOKEN; left out: $VITRAIL_TOKEN, and without that nothing. In the
    environment other users of the machine cannot read it."""
    batch_size: int = 32
    """Most images computed at once."""
    batch_delay: float = 5.0
    """Milliseconds for which an image waits for others to be computed with."""
    queue: int = 256
    """Images in the service at once, from upload to answer; a client with one more is told to come again (503)."""
    upload_megabytes: float = 16.0
    """Largest body of a request, in millions of bytes."""
    pixels: int = MAX_PIXELS
    """Largest width times height of an image."""
    images_per_request: int = 64
    """Most images in one request."""
    timeout: float = 30.0
    """Seconds after which a request is given up (504)."""
    merge: int = 0
    """Token merging: pairs of tokens that become one in each block of a vision transformer. Faster, at some cost in
    accuracy, which `vitrail evaluate --merge` tells; try 8 to 16 at 224 pixels."""
    device: str = "auto"
    """cpu, cuda, mps, or auto for the best there is."""
    precision: Precision = "auto"
    """Format of matrix products; auto is bfloat16 where the machine has it."""
    quiet: bool = False
    """Do not log a line for each request."""
    stated: Stated = UNSTATED
    json: bool = False
    """Log JSON, one document a line; and print at the end how many requests were answered, by status."""
