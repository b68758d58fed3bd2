"""Batches as a pure function: the n-th is determined by (seed, n), whoever makes it and whatever was made before."""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, get_worker_info
from torch.utils.data import Dataset as TorchDataset

from vitrail.choices import MAX_UNREADABLE
from vitrail.console import say
from vitrail.data.augment import Augment, augment_picture
from vitrail.data.mix import Mix, mix
from vitrail.data.picture import Remembered
from vitrail.data.preprocess import Preprocess
from vitrail.data.rng import generator
from vitrail.data.sample import Batch, Label, Labels, Sample
from vitrail.data.source import Source
from vitrail.errors import DataError, SettingError, UnreadableImage, VitrailError

T = TypeVar("T")

IN_A_ROW = 100  # unreadable images after which a batch is given up


@dataclass(frozen=True)
class TrainingBatches(TorchDataset[Batch]):
    """Endless shuffled, augmented batches of a source; ``batches[n]`` for any n ≥ 0.

    Every epoch is a fresh order of the whole source, of which the last incomplete batch is left out. With several
    processes each makes its own rows (``rank`` of ``world``) of the same global batch.

    Args:
        source: the images.
        classes: K, the number of classes.
        preprocess: size, interpolation and channels of the result.
        augment: what chance may do to an image.
        mix: what chance may do to a pair of images.
        batch_size: B, the number of images of the global batch.
        further: chance and preprocessing of each further view of an image, for objectives that compare views.
        balance: draw each class equally often, with replacement, instead of each image once.
        seed: with n, determines batch n.
        rank, world: which equal part of each batch this process makes.
    """

    source: Source
    classes: int
    preprocess: Preprocess
    augment: Augment
    mix: Mix
    batch_size: int
    further: tuple[tuple[Augment, Preprocess], ...] = ()
    balance: bool = False
    seed: int = 0
    rank: int = 0
    world: int = 1

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise SettingError(f"the batch size must be at least 1, not {self.batch_size}.")
        if self.batch_size % (2 * self.world) and self.world > 1:
            raise SettingError(f"the batch size {self.batch_size} does not divide into {self.world} equal, even parts.")
        if self.batch_size > len(self.source):
            raise SettingError(
                f"the batch size {self.batch_size} is larger than the {len(self.source)} images there are."
            )

    @property
    def steps_per_epoch(self) -> int:
        return len(self.source) // self.batch_size

    def __getitem__(self, step: int) -> Batch:
        epoch, position = divmod(step, self.steps_per_epoch)
        rows = self.batch_size // self.world
        first = position * self.batch_size + self.rank * rows
        order = self._order(epoch)
        unreadable: list[UnreadableImage] = []
        views = [self._views(order, place, epoch, unreadable) for place in range(first, first + rows)]
        samples, *further = (list(of_all) for of_all in zip(*views, strict=True))
        images, labels = stack(samples, self.classes)
        if labels is not None and (self.mix.mixup or self.mix.cutmix):
            mixed, labels = mix(images.numpy(), labels, self.mix, self.seed, step, self.rank * rows)
            images.copy_(torch.from_numpy(mixed))
        draws = generator(self.seed, "mask", step).integers(2**63, size=self.batch_size)
        return replace(
            as_batch(samples, images, labels, step, unreadable),
            draws=torch.from_numpy(draws[self.rank * rows : (self.rank + 1) * rows]),
            views=tuple(channels_first(stack(each, self.classes)[0]) for each in further),
        )

    def _views(
        self, order: NDArray[np.int64], place: int, epoch: int, unreadable: list[UnreadableImage]
    ) -> tuple[Sample, ...]:
        """The image at ``place`` of ``order`` as chance shows it, and as it shows it in each further view."""

        def views(index: int) -> tuple[Sample, ...]:
            picture = self.source.picture(index)
            rng = generator(self.seed, "augment", epoch, place)  # by place: balancing draws an image more than once
            if self.further:
                picture = Remembered(picture)
            settings = ((self.augment, self.preprocess), *self.further)
            return tuple(augment_picture(picture, augment, preprocess, rng) for augment, preprocess in settings)

        return next_readable(views, order, place, unreadable)

    def _order(self, epoch: int) -> NDArray[np.int64]:
        rng = generator(self.seed, "order", epoch)
        if self.balance:
            return rng.choice(len(self.source), size=len(self.source), p=self._chances)
        return rng.permutation(len(self.source))

    @cached_property
    def _chances(self) -> NDArray[np.float64]:
        return balancing_weights(self.source, self.classes)


@dataclass(frozen=True)
class FirstEpoch(TorchDataset[Batch]):
    """The batches of a source's first epoch, always the same, to measure what depends on views and their order."""

    batches: TrainingBatches

    def __len__(self) -> int:
        return self.batches.steps_per_epoch

    def __getitem__(self, step: int) -> Batch:
        return self.batches[step]


@dataclass(frozen=True)
class EvaluationBatches(TorchDataset[tuple[Batch, list[int]]]):
    """Every image of a source once, as the model's preprocessing shows it, in order; unreadable ones are left out.

    ``batches[n]`` is a batch together with the numbers of its images in the source. With several processes each
    sees every ``world``-th image.
    """

    source: Source
    classes: int
    preprocess: Preprocess
    batch_size: int
    rank: int = 0
    world: int = 1

    def __len__(self) -> int:
        return -(-len(range(self.rank, len(self.source), self.world)) // self.batch_size)

    def __getitem__(self, step: int) -> tuple[Batch, list[int]]:
        mine = range(self.rank, len(self.source), self.world)[step * self.batch_size : (step + 1) * self.batch_size]
        samples, numbers, unreadable = prepared(lambda index: self.source.view(index, self.preprocess), mine)
        if not samples:
            empty = torch.empty(0, self.preprocess.channels, *self.preprocess.size, dtype=torch.uint8)
            return Batch(empty, (), torch.empty(0, self.classes), step=step, unreadable=tuple(unreadable)), []
        images, labels = stack(samples, self.classes)
        draws = torch.tensor(numbers, dtype=torch.int64)  # always the same, so that figures can be compared
        return replace(as_batch(samples, images, labels, step, unreadable), draws=draws), numbers


def prepared(
    read: Callable[[int], Sample], indices: Sequence[int]
) -> tuple[list[Sample], list[int], list[UnreadableImage]]:
    """What ``read`` makes of those of the images that can be read; their numbers; and what cannot be read."""
    samples, numbers, unreadable = [], [], []
    for index in indices:
        try:
            samples.append(read(index))
            numbers.append(index)
        except UnreadableImage as error:
            unreadable.append(error)
    return samples, numbers, unreadable


def next_readable(
    read: Callable[[int], T], order: NDArray[np.int64], place: int, unreadable: list[UnreadableImage]
) -> T:
    """What ``read`` makes of the image at ``place`` of ``order``, or of the first readable one after it.

    What could not be read is added to the list.

    After it in the order, not in the source, where damaged files are often neighbours. Raises :class:`DataError` when
    a hundred in a row cannot be read.
    """
    tries = min(len(order), IN_A_ROW)
    for offset in range(tries):
        try:
            return read(int(order[(place + offset) % len(order)]))
        except UnreadableImage as error:
            unreadable.append(error)
    raise DataError(f"{tries} images in a row cannot be read; mend or remove them (the last: {unreadable[-1]}).")


def balancing_weights(source: Source, classes: int) -> NDArray[np.float64]:
    """For each image the chance that makes every class equally likely; an image of many labels has its rarest one's."""
    indices = [_indices(source.label(i)) for i in range(len(source))]
    counts = np.bincount([k for ks in indices for k in ks], minlength=classes)
    weights = np.array([max((1 / counts[k] for k in ks), default=1 / len(source)) for ks in indices])
    return weights / weights.sum()


def stack(samples: Sequence[Sample], classes: int) -> tuple[torch.Tensor, NDArray[np.float32] | None]:
    """Images ``(B, H, W, C)`` uint8 and labels ``(B, K)`` float32, one-hot or multi-hot; None where there are none."""
    images = room((len(samples), *samples[0].image.shape))
    np.stack([sample.image for sample in samples], out=images.numpy())
    if any(sample.label is None for sample in samples):
        return images, None
    labels = np.zeros((len(samples), classes), dtype=np.float32)
    for row, sample in zip(labels, samples, strict=True):
        row[list(_indices(sample.label))] = 1
    return images, labels


def as_batch(
    samples: Sequence[Sample],
    images: torch.Tensor,
    labels: NDArray[np.float32] | None,
    step: int,
    unreadable: Sequence[UnreadableImage],
) -> Batch:
    """The batch as tensors."""
    return Batch(
        images=channels_first(images),
        names=tuple(sample.name for sample in samples),
        labels=None if labels is None else torch.from_numpy(labels),
        boxes=tuple(sample.boxes for sample in samples if sample.boxes is not None),
        masks=tuple(sample.masks for sample in samples if sample.masks is not None),
        semantic=tuple(sample.semantic for sample in samples if sample.semantic is not None),
        points=tuple(sample.points for sample in samples if sample.points is not None),
        captions=tuple(sample.caption for sample in samples if sample.caption is not None),
        step=step,
        unreadable=tuple(unreadable),
    )


def room(shape: tuple[int, ...]) -> torch.Tensor:
    """uint8 to be filled; in a worker, in memory that the process it works for sees, so that nothing is copied."""
    if get_worker_info() is None:
        return torch.empty(shape, dtype=torch.uint8)
    storage = torch.UntypedStorage._new_shared(math.prod(shape))  # as torch's own default_collate does
    return torch.empty(0, dtype=torch.uint8).set_(storage).view(shape)


def channels_first(images: torch.Tensor) -> torch.Tensor:
    """Images ``(B, H, W, C)`` as ``(B, C, H, W)`` without a copy (channels-last in memory)."""
    return images.permute(0, 3, 1, 2)


class UnreadableImages:
    """Names each unreadable image once, and stops the work when there are too many of them."""

    def __init__(self, images: int, max_share: float = MAX_UNREADABLE) -> None:
        self.limit = max_share * images
        self.images = images
        self.seen: set[str] = set()

    def note(self, errors: Sequence[UnreadableImage]) -> None:
        """Raises :class:`DataError` once more than the allowed share of all images was unreadable."""
        for error in errors:
            if error.name not in self.seen:
                self.seen.add(error.name)
                say(f"left out: {error}")
        if len(self.seen) > self.limit:
            raise DataError(
                f"{len(self.seen)} of {self.images} images cannot be read, more than --max-unreadable allows; "
                f"mend or remove them, or allow a larger share (the last: {errors[-1]})."
            )


def load_batches(batches: TorchDataset, start: int, stop: int, workers: int) -> Iterator:
    """``batches[start]`` to ``batches[stop - 1]``, made ahead by worker processes (0: by this one)."""
    if workers < 0:
        raise SettingError(f"the number of workers must be 0 or more, not {workers}.")
    loader = DataLoader(
        _ErrorsAsValues(batches),
        batch_size=None,
        sampler=range(start, stop),
        num_workers=workers,
        prefetch_factor=2 if workers else None,
        worker_init_fn=_quiet_worker if workers else None,
        generator=torch.Generator(),  # not the global one: drawing from it would disturb dropout
    )
    for batch in loader:
        if isinstance(batch, VitrailError):
            raise batch
        yield batch


def default_workers(images: int) -> int:
    """Workers that keep the processor busy without crowding it; none for data that is read in no time."""
    if images < 200:
        return 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(8, max(1, cores // 2))


@dataclass(frozen=True)
class _ErrorsAsValues(TorchDataset):
    """The same batches, and our errors among them: torch would bury one sentence under a worker's traceback."""

    batches: TorchDataset

    def __getitem__(self, step: int) -> object:
        try:
            return self.batches[step]
        except VitrailError as error:
            return error


def _quiet_worker(worker: int) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):  # they reach every process; the main one decides what to do
        signal.signal(number, signal.SIG_IGN)
    torch.set_num_threads(1)


def _indices(label: Label | Labels | None) -> tuple[int, ...]:
    if label is None:
        return ()
    return (label.index,) if isinstance(label, Label) else label.indices
