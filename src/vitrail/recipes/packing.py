"""What `--pack` does: images keep their proportions, and those of several sizes are computed as one row."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from vitrail.data.loader import EvaluationBatches
from vitrail.data.proportions import PackedBatch, PackedBatches, Proportions
from vitrail.data.source import Source
from vitrail.errors import SettingError
from vitrail.export.predictor import Exported
from vitrail.nn.position import Resampling
from vitrail.tasks import Task
from vitrail.tasks.classifier import Classifier
from vitrail.tasks.learner import Learner

RESAMPLING: Resampling = "bicubic-antialias"  # of learned positions for each grid, where nothing else is set; timm's


class Packs(Protocol):
    """The settings of a recipe that packs."""

    @property
    def run(self) -> str: ...

    @property
    def pack(self) -> bool: ...

    @property
    def pack_tokens(self) -> int | None: ...


def packing(settings: Packs, opened: Learner | Exported) -> Proportions | None:
    """How images are prepared for a model that is to pack them, None without ``--pack``; makes the model ready for it.

    Raises :class:`SettingError` for a model that cannot pack.
    """
    if not settings.pack:
        if settings.pack_tokens is not None:
            raise SettingError("--pack-tokens says how many patches an image may have with --pack; add --pack.")
        return None
    if isinstance(opened, Exported):
        raise SettingError(f"{settings.run} reads images of one size only; give --pack the run that it was made of.")
    if not isinstance(opened, Task):
        raise SettingError(f"--pack is for models that say the classes of images, which {settings.run} does not.")
    backbone = opened.packing_backbone()
    if backbone.merge:
        raise SettingError("tokens of packed images cannot be merged; leave out --pack or --merge.")
    backbone.resampling = backbone.resampling or RESAMPLING
    return Proportions(opened.preprocess, backbone.config.patch_size, settings.pack_tokens)


def batches_of(
    source: Source, task: Classifier, proportions: Proportions | None, batch_size: int, rank: int = 0, world: int = 1
) -> EvaluationBatches | PackedBatches:
    """Every image once, as the task's own preprocessing shows it, or at its own proportions."""
    if proportions is None:
        return EvaluationBatches(source, len(task.classes), task.preprocess, batch_size, rank, world)
    return PackedBatches(source, len(task.classes), proportions, batch_size, rank, world)


def packed_logits(task: Classifier, batch: PackedBatch) -> Tensor:
    """Logits ``(B, K)`` of the images of all rows, in their order."""
    assert isinstance(task, Task)
    return torch.cat([task.packed(row) for row in batch.rows])
