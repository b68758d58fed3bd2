"""What can be asked of `vitrail train`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from vitrail.choices import MAX_UNREADABLE, Adapt, DistillationKind, OptimizerName, Precision
from vitrail.recipes.settings import Changes, LeftOpen


@dataclass(frozen=True)
class Train:
    """Train a model on your images or texts; what you leave open is chosen for your data, and said.

    Examples:
      vitrail train photos/
      vitrail train photos/ --model vit-s16 --image-size 160 --epochs 50 --out runs/photos
      vitrail train photos/ --weights timm:vit_base_patch16_224.augreg_in21k --adapt lora
      vitrail train photos/ --model deit-ti16-distilled --teacher runs/photos
      vitrail train labels.csv --balance sampling --augment strong --weights none
      vitrail train --resume runs/photos
      torchrun --nproc-per-node 2 -m vitrail train photos/
      vitrail train reviews.csv --task text-classification --weights runs/my-bert
    """

    data: Positional[LeftOpen[str]] = None
    """A folder of class folders, a table of paths and labels, or another kind of data that `vitrail info` knows; for a
    task of text what docs/text-tasks.md shows."""
    task: str = "classification"
    """What is learned: classification, of images; of text text-classification, text-pair, tagging, answer."""
    out: LeftOpen[Path] = None
    """The run's folder; left out: runs/DATA-MODEL."""
    resume: LeftOpen[Path] = None
    """Go on with this run, exactly where it was and as it was started; no other flags are needed."""
    overwrite: bool = False
    """Replace the run that is in --out."""
    model: str = "auto"
    """A name from `vitrail models`."""
    config: Changes = ()
    """Changes to the model, such as: patch_size=8 position=rotary pool=map registers=4 drop_path=0.1."""
    weights: str = "auto"
    """What to start from: a run's folder, hf:ORG/NAME, timm:NAME, a file (with --layout and --model); none for random
    weights; auto for the published ones that `vitrail models` shows for the model."""
    layout: LeftOpen[str] = None
    """Whose names the tensors of a file in --weights have: timm, torchvision, google, paper …"""
    recipe: LeftOpen[str] = None
    """What a paper set: deit, augreg, swin, bit, mae-finetune; or small, ours. What you set yourself stays."""
    adapt: Adapt = "full"
    """What is trained: full, all; head, the classifier alone; lora, that and low-rank changes to the attention."""
    freeze: int = 0
    """Lowest layers that stay as they are; the stem is layer 0, then come the blocks."""
    lora_rank: int = 8
    """Rank of the changes with --adapt lora."""
    teacher: LeftOpen[str] = None
    """A trained model of the same classes whose answers are learned beside the labels: a run's folder, hf:ORG/NAME …"""
    distill: DistillationKind = "hard"
    """What is learned of the teacher: hard, its most probable class; soft, all its probabilities."""
    image_size: LeftOpen[int] = None
    """Side of the images in pixels, as the model sees them; left out: chosen for the data."""
    epochs: LeftOpen[int] = None
    """How many times to go through the training images; left out: chosen for the data."""
    batch_size: LeftOpen[int] = None
    """Images in a step, over all processes; left out: chosen for the data."""
    learning_rate: LeftOpen[float] = None
    """Peak learning rate; left out: 0.001, for SGD 0.02; a quarter of it where trained weights go on learning."""
    optimizer: OptimizerName = "adamw"
    """AdamW, or SGD with momentum."""
    weight_decay: float = 0.05
    """Of matrices and kernels; norms, biases, positions and tokens never decay."""
    layer_decay: LeftOpen[float] = None
    """Factor of the learning rate from each layer to the one below; left out: 1, for trained weights the family's."""
    warmup_epochs: LeftOpen[float] = None
    """Epochs until the learning rate is at its peak; left out: a tenth of all, at most 5."""
    clip: float = 1.0
    """Largest norm of the gradient; 0 for any."""
    accumulate: int = 1
    """Parts into which each batch is cut to save memory."""
    recompute: bool = False
    """Keep no activations inside of blocks, and compute them again (gradient checkpointing): less memory, more time."""
    ema: float = 0.0
    """Decay of a moving average of the weights, such as 0.999; 0 for none."""
    patience: int = 0
    """Stop after so many epochs without a better score; 0 for never."""
    augment: Literal["auto", "none", "light", "strong"] = "auto"
    """How much chance changes each image: crops, shifts, colours; auto is light."""
    flip: Literal["auto", "yes", "no"] = "auto"
    """Mirror images by chance; auto: only colour ones, for a mirrored sign is another sign."""
    mixup: float = 0.0
    """Strength of Mixup, which blends pairs of images and labels, such as 0.8; 0 for none."""
    cutmix: float = 0.0
    """Strength of CutMix, which pastes a part of one image into another, such as 1.0; 0 for none."""
    label_smoothing: float = 0.1
    """Share of each label that is spread over all classes."""
    balance: Literal["none", "sampling", "weights"] = "none"
    """For classes of very different sizes: draw each class equally often, or weight its loss."""
    share: float = 1.0
    """Train on this share of the training images, such as 0.1; each is seen so much more often."""
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
    length: LeftOpen[int] = None
    """Most tokens of a text; longer ones are cut. Left out: as many as the model takes."""
    tokenizer: LeftOpen[str] = None
    """How text becomes tokens where no trained weights say it: words, characters, or a tokenizer's file or folder."""
    vocabulary: int = 8000
    """Most tokens of a tokenizer that is learned from the texts."""
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
