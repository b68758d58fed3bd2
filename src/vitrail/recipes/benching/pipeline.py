"""How fast one core makes images ready for training: read, decode, augment."""

from __future__ import annotations

from dataclasses import asdict
from itertools import count
from typing import Any

import torch

from vitrail.bench.timing import seconds_of, spread
from vitrail.data.augment import PRESETS
from vitrail.data.dataset import open_dataset
from vitrail.data.loader import TrainingBatches
from vitrail.data.mix import Mix
from vitrail.data.preprocess import Preprocess


def training_batches(data: str, preprocess: Preprocess, batch_size: int) -> TrainingBatches:
    """Batches as `vitrail train` makes them if nothing is said, of the first split that the data have."""
    dataset = open_dataset(data, as_given=True)
    source = next(iter(dataset.splits.values()))
    rows = min(batch_size, len(source))
    return TrainingBatches(source, len(dataset.classes), preprocess, PRESETS["light"], Mix(), rows)


def pipeline_speed(batches: TrainingBatches, seconds: float) -> dict[str, Any]:
    """Images a second that this process makes with one thread, as a worker of the loader does."""
    numbers, threads = count(), torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        times = seconds_of(lambda: batches[next(numbers)], seconds, torch.device("cpu"))
    finally:
        torch.set_num_threads(threads)
    return {
        "images": len(batches.source),
        "image_size": list(batches.preprocess.size),
        "channels": batches.preprocess.channels,
        "images_per_second_a_core": asdict(spread([batches.batch_size / each for each in times])),
    }
