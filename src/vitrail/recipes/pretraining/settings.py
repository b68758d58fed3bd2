"""What can be asked of `vitrail pretrain`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from vitrail.choices import MAX_UNREADABLE, OptimizerName, Precision
from vitrail.recipes.settings import Changes, LeftOpen


@dataclass(frozen=True)
class Pretrain:
    """Let a model learn from images or text alone; then `vitrail train DATA --weights RUN` makes use of it.

    Examples:
      vitrail pretrain photos/ --objective mae --model vit-s16
      vitrail pretrain photos/ --objective mae --options mask_ratio=0.6 decoder_depth=4
      vitrail pretrain book.txt --objective next-token --steps 2000
      vitrail pretrain --resume runs/photos-mae
    """

    data: Positional[LeftOpen[str]] = None
    """Images: any data set, or a folder with images in it. Text: a file, a table with a column of texts, a folder."""
    objective: LeftOpen[str] = None
    """What is learned: of images mae, dino, simclr, next-pixel or masked-pixel; of text next-token, masked-token or
    span."""
    out: LeftOpen[Path] = None
    """The run's folder; left out: runs/DATA-OBJECTIVE."""
    resume: LeftOpen[Path] = None
    """Go on with this run, exactly where it was and as it was started; no other flags are needed."""
    overwrite: bool = False
    """Replace the run that is in --out."""
    model: str = "auto"
    """A name from `vitrail models`."""
    config: Changes = ()
    """Changes to the model, such as: width=192 depth=6 patch_size=8."""
    options: Changes = ()
    """What can be set about the objective, such as: mask_ratio=0.6."""
    weights: str = "none"
    """What to start from: a run's folder, hf:ORG/NAME, timm:NAME; none for random weights."""
    image_size: LeftOpen[int] = None
    """Side of the images in pixels, as the model sees them; left out: chosen for the data."""
    context: LeftOpen[int] = None
    """Most tokens of text that the model sees at once; left out: the model's."""
    tokenizer: str = "characters"
    """How text becomes tokens: characters, byte-pairs, words or pieces, learned from it; or a file or folder."""
    vocabulary: int = 8000
    """Most tokens of a tokenizer that is learned from the text."""
    text_column: LeftOpen[str] = None
    """The column of a table that holds the texts; left out: text, sentence, content …"""
    epochs: LeftOpen[int] = None
    """How many times to go through the data; left out: chosen for the data."""
    steps: LeftOpen[int] = None
    """How many steps to train, instead of epochs."""
    batch_size: LeftOpen[int] = None
    """Images, or rows of text, in a step, over all processes; left out: chosen for the data."""
    learning_rate: float = 1e-3
    """Peak learning rate."""
    optimizer: OptimizerName = "adamw"
    """AdamW, or SGD with momentum."""
    weight_decay: float = 0.05
    """Of matrices and kernels; norms, biases, positions and tokens never decay."""
    beta2: LeftOpen[float] = None
    """Decay of AdamW's second moment; left out: the objective's."""
    warmup_share: float = 0.05
    """Share of all steps until the learning rate is at its peak."""
    clip: float = 1.0
    """Largest norm of the gradient; 0 for any."""
    accumulate: int = 1
    """Parts into which each batch is cut to save memory."""
    recompute: bool = False
    """Keep no activations inside of blocks, and compute them again (gradient checkpointing): less memory, more time."""
    format: LeftOpen[str] = None
    """How images are stored, where looking at them does not tell: folder, csv, parquet …"""
    image_column: LeftOpen[str] = None
    """The column of a table that holds the images' paths; left out: image, path, file …"""
    max_unreadable: float = MAX_UNREADABLE
    """Share of images that may be unreadable before training stops."""
    workers: LeftOpen[int] = None
    """Processes that read images; changes the speed only. Left out: chosen for the machine."""
    cache: str = "none"
    """Keep decoded images for the next epoch, and run: none; auto, in at most a quarter of the disk's free space; or a
    size such as 4GiB. Changes the speed only; `vitrail cache` shows what is kept."""
    device: str = "auto"
    """cpu, cuda, mps, or auto for the best there is."""
    precision: Precision = "auto"
    """Format of matrix products; auto is bfloat16 where the machine has it."""
    shard: bool = False
    """Under torchrun: spread weights and optimizer over the processes (FSDP2) instead of copying them."""
    save_seconds: float = 60.0
    """Seconds from one saved state for --resume to the next; changes no result."""
    log: Literal["none", "tensorboard"] = "none"
    """Write TensorBoard events, too."""
    seed: int = 0
    """Another seed is another run; the same one is the same run."""
    json: bool = False
    """Print the figures as one JSON document."""
