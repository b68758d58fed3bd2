"""Batch n is a pure function of (seed, n): whoever makes it, in whatever order, alone or in slices."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from torch import Tensor

from vitrail.data import loader
from vitrail.data.augment import PRESETS, Augment
from vitrail.data.folder import ImageFiles
from vitrail.data.loader import (
    EvaluationBatches,
    TrainingBatches,
    UnreadableImages,
    balancing_weights,
    default_workers,
    load_batches,
)
from vitrail.data.mix import Mix
from vitrail.data.preprocess import Preprocess
from vitrail.data.sample import Batch, Label, Labels, Sample
from vitrail.data.shapes import CLASSES as SHAPES
from vitrail.data.shapes import Shapes
from vitrail.data.source import Source
from vitrail.errors import DataError, SettingError, UnreadableImage

pytestmark = [
    pytest.mark.filterwarnings("ignore:This DataLoader will create 4 worker processes:UserWarning"),
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]

NOISE_SIDES = (9, 12)


@dataclass(frozen=True)
class Noise(Source):
    """Images of noise and of several sizes, each its own; some of them cannot be read."""

    labels: Sequence[Label | Labels | None]
    bad: frozenset[int] = frozenset()

    def __len__(self) -> int:
        return len(self.labels)

    def name(self, index: int) -> str:
        return str(index)

    def label(self, index: int) -> Label | Labels | None:
        return self.labels[index]

    def encoded(self, index: int) -> bytes:
        return self.sample(index).image.tobytes()

    def sample(self, index: int) -> Sample:
        if index in self.bad:
            raise UnreadableImage(self.name(index), "damaged")
        shape = (NOISE_SIDES[index % 2], 10, 3)
        image = np.random.default_rng(index).integers(0, 256, shape, dtype=np.uint8)
        return Sample(image, self.name(index), self.labels[index])


CLASSES = 3
PREPROCESS = Preprocess(size=(8, 8))


def noise(count: int, bad: Sequence[int] = ()) -> Noise:
    return Noise(tuple(Label(index % CLASSES) for index in range(count)), frozenset(bad))


def training(source: Source, batch_size: int = 8, **changes: Any) -> TrainingBatches:
    plain: dict[str, Any] = {"augment": Augment(), "mix": Mix()}
    return TrainingBatches(source, CLASSES, PREPROCESS, batch_size=batch_size, **(plain | changes))


STRONG: dict[str, Any] = {"augment": PRESETS["strong"], "mix": Mix(mixup=0.8, cutmix=1.0), "seed": 3}


def content(batch: Batch) -> dict[str, Any]:
    """Everything in a batch, tensors as bytes and errors as text."""
    values = {field.name: getattr(batch, field.name) for field in fields(batch)}
    values["unreadable"] = [str(error) for error in batch.unreadable]
    return {name: v.numpy().tobytes() if isinstance(v, Tensor) else v for name, v in values.items()}


def epoch_names(batches: TrainingBatches, epoch: int) -> list[str]:
    steps = range(epoch * batches.steps_per_epoch, (epoch + 1) * batches.steps_per_epoch)
    return [name for step in steps for name in batches[step].names]


# --------------------------------------------------------------------------------------------------- a pure function


def on_disk(folder: Path, source: Noise) -> ImageFiles:
    """The same images as files, which worker processes can read however they are started."""
    for index in range(len(source)):
        file = folder / f"{index}.png"
        if index in source.bad:
            file.write_bytes(b"damaged")
        else:
            PIL.Image.fromarray(source.sample(index).image).save(file)
    labels = [source.labels[index] or Label(0) for index in range(len(source))]
    return ImageFiles(str(folder), [f"{index}.png" for index in range(len(source))], labels)


@pytest.fixture(scope="module")
def strong(tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainingBatches, list[dict[str, Any]]]:
    """Batches with everything that chance can do, over several epochs, with images that cannot be read."""
    batches = training(on_disk(tmp_path_factory.mktemp("images"), noise(37, bad=[4, 5, 20])), **STRONG)
    return batches, [content(batches[step]) for step in range(12)]


@pytest.mark.parametrize("workers", [0, 1, 4])
@pytest.mark.parametrize("start", [0, 3, 7])
def test_any_number_of_workers_and_any_start_give_the_same_batches(
    strong: tuple[TrainingBatches, list[dict[str, Any]]], workers: int, start: int
) -> None:
    batches, expected = strong
    assert [content(batch) for batch in load_batches(batches, start, 12, workers)] == expected[start:]


def test_any_order_gives_the_same_batches(strong: tuple[TrainingBatches, list[dict[str, Any]]]) -> None:
    batches, expected = strong
    np.random.seed(1)  # noqa: NPY002  (nobody may read this state)
    torch.manual_seed(1)
    for step in (11, 2, 2, 7, 0, 5):
        assert content(batches[step]) == expected[step]


def test_a_copy_in_another_process_gives_the_same_batches(
    strong: tuple[TrainingBatches, list[dict[str, Any]]],
) -> None:
    batches, expected = strong
    assert content(pickle.loads(pickle.dumps(batches))[5]) == expected[5]


def test_each_batch_is_another_and_each_seed_too(strong: tuple[TrainingBatches, list[dict[str, Any]]]) -> None:
    batches, expected = strong
    other = [content(replace(batches, seed=4)[step]) for step in range(12)]
    assert len({batch["images"] for batch in expected + other}) == 24
    assert [batch["step"] for batch in expected] == list(range(12))


@pytest.mark.parametrize("world", [2, 3, 4])
@pytest.mark.parametrize("balance", [False, True])
def test_the_slices_of_all_processes_are_the_whole_batch(world: int, balance: bool) -> None:
    whole = training(noise(60, bad=[7]), 24, balance=balance, **STRONG)
    for step in range(5):
        batch = whole[step]
        parts = [replace(whole, rank=rank, world=world)[step] for rank in range(world)]
        assert [len(part) for part in parts] == [24 // world] * world
        assert torch.equal(torch.cat([part.images for part in parts]), batch.images)
        assert batch.labels is not None
        assert torch.equal(torch.cat([part.labels for part in parts if part.labels is not None]), batch.labels)
        assert [name for part in parts for name in part.names] == list(batch.names)


def test_loading_does_not_touch_the_global_generator_that_dropout_draws_from(
    strong: tuple[TrainingBatches, list[dict[str, Any]]],
) -> None:
    before = torch.get_rng_state()
    for workers in (0, 1):
        list(load_batches(strong[0], 0, 2, workers))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"batch_size": 0}, "at least 1, not 0"),
        ({"batch_size": -4}, "at least 1, not -4"),
        ({"batch_size": 17}, "17 is larger than the 16 images"),
        ({"batch_size": 6, "world": 2}, "6 does not divide into 2 equal, even parts"),
    ],
)
def test_a_batch_size_that_cannot_be_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingError, match=words):
        training(noise(16), **changes)


def test_a_number_of_workers_that_cannot_be_is_refused() -> None:
    with pytest.raises(SettingError, match="0 or more, not -1"):
        list(load_batches(training(noise(16)), 0, 2, -1))


# ------------------------------------------------------------------------------------------- which images, how often


@pytest.mark.parametrize(("images", "batch_size"), [(32, 8), (37, 8), (5, 5), (7, 1)])
def test_each_epoch_has_each_image_once(images: int, batch_size: int) -> None:
    batches = training(noise(images), batch_size)
    assert batches.steps_per_epoch == images // batch_size
    epochs = [epoch_names(batches, epoch) for epoch in range(4)]
    for names in epochs:
        assert len(names) == len(set(names)) == images // batch_size * batch_size
    assert len({tuple(names) for names in epochs}) == 4


def test_every_image_comes_first_about_as_often() -> None:
    """200 epochs of 5 images: each is first 40 times, give or take 5 deviations."""
    batches = training(noise(5), 5)
    first = Counter(epoch_names(batches, epoch)[0] for epoch in range(200))
    assert set(first) == {"0", "1", "2", "3", "4"}
    assert all(abs(count - 40) < 5 * (200 * 0.2 * 0.8) ** 0.5 for count in first.values())


def labelled(sizes: Sequence[int]) -> Noise:
    return Noise(tuple(Label(k) for k, size in enumerate(sizes) for _ in range(size)))


def test_balanced_every_class_is_drawn_equally_often_and_every_image_of_it() -> None:
    batches = training(labelled([90, 9, 1]), 20, balance=True, seed=1)
    names = [int(name) for epoch in range(30) for name in epoch_names(batches, epoch)]
    assert len(names) == 3000
    expected = np.concatenate([np.full(90, 1000 / 90), np.full(9, 1000 / 9), [1000.0]])
    counts = np.bincount(names, minlength=100)
    chi_square = float(((counts - expected) ** 2 / expected).sum())
    assert abs(chi_square - 99) < 5 * (2 * 99) ** 0.5  # its mean is the degrees of freedom, its variance twice that
    classes = np.array([counts[:90].sum(), counts[90:99].sum(), counts[99]])
    assert np.all(abs(classes - 1000) < 5 * (3000 * 2 / 9) ** 0.5)


def test_an_image_that_is_drawn_again_is_changed_anew() -> None:
    batches = training(labelled([19, 1]), 20, balance=True, augment=PRESETS["light"])
    batch = batches[0]
    again = [image.numpy().tobytes() for image, name in zip(batch.images, batch.names, strict=True) if name == "19"]
    assert len(again) > 3
    assert len(set(again)) == len(again)


def test_the_chances_of_balanced_drawing_are_those_computed_by_hand() -> None:
    one_label = balancing_weights(labelled([3, 1]), 2)
    np.testing.assert_allclose(one_label, [1 / 6, 1 / 6, 1 / 6, 1 / 2])
    # Labels 0, 1 and 2 occur 3, 2 and 1 times; the rarest one of an image counts, and none is as rare as one in five.
    many = Noise((Labels((0,)), Labels((0, 1)), Labels((0, 1, 2)), Labels(()), Labels((1,))))
    raw = np.array([1 / 3, 1 / 3, 1, 1 / 5, 1 / 3])
    raw[1] = raw[4] = 1 / 3
    np.testing.assert_allclose(balancing_weights(many, 3), raw / raw.sum())


# -------------------------------------------------------------------------------------------------- what is in a batch


def test_images_are_prepared_and_stay_bytes_in_channels_last() -> None:
    source = noise(16)
    batch = training(source)[0]
    assert batch.images.dtype == torch.uint8
    assert batch.images.shape == (8, 3, 8, 8)
    assert batch.images.is_contiguous(memory_format=torch.channels_last)
    for image, name in zip(batch.images, batch.names, strict=True):
        expected = PREPROCESS.apply(source.sample(int(name)))[0].image
        np.testing.assert_array_equal(image.permute(1, 2, 0).numpy(), expected)


def test_one_label_is_one_hot() -> None:
    batch = training(noise(16))[0]
    assert batch.labels is not None
    assert batch.labels.dtype == torch.float32
    assert batch.labels.argmax(dim=1).tolist() == [int(name) % CLASSES for name in batch.names]
    assert batch.labels.sum(dim=1).tolist() == [1.0] * 8


MANY = Noise((Labels((0, 2)), Labels(()), Labels((1,)), Labels((0, 1, 2))))
MULTI_HOT = [[1, 0, 1], [0, 0, 0], [0, 1, 0], [1, 1, 1]]


def test_many_labels_are_multi_hot() -> None:
    batch = training(MANY, 4)[0]
    assert batch.labels is not None
    assert batch.labels.tolist() == [MULTI_HOT[int(name)] for name in batch.names]
    evaluation, _ = EvaluationBatches(MANY, CLASSES, PREPROCESS, 4)[0]
    assert evaluation.labels is not None
    assert evaluation.labels.tolist() == MULTI_HOT


def test_images_without_labels_have_none() -> None:
    batch, _ = EvaluationBatches(Noise((None, Label(1))), CLASSES, PREPROCESS, 2)[0]
    assert batch.labels is None
    assert training(Noise((None,) * 4), 4, mix=Mix(mixup=1.0))[0].labels is None


def test_every_target_that_an_image_has_is_in_the_batch() -> None:
    batch, numbers = EvaluationBatches(Shapes(count=4, seed=0), len(SHAPES), PREPROCESS, 4)[0]
    assert numbers == [0, 1, 2, 3]
    for name in ("boxes", "masks", "semantic", "points", "captions"):
        assert len(getattr(batch, name)) == 4, name
    plain, _ = EvaluationBatches(noise(4), CLASSES, PREPROCESS, 4)[0]
    assert (plain.boxes, plain.masks, plain.semantic, plain.points, plain.captions) == ((),) * 5


# ------------------------------------------------------------------------------------------ images that cannot be read


def test_what_cannot_be_read_is_replaced_by_the_next_one_and_reported() -> None:
    bad = {3, 8, 9, 10, 21, 31}
    order = epoch_names(training(noise(32)), 0)
    damaged = training(noise(32, bad=sorted(bad)))
    expected = []
    for place in range(32):
        while int(order[place % 32]) in bad:
            place += 1
        expected.append(order[place % 32])
    assert epoch_names(damaged, 0) == expected
    for step in range(4):
        own = [int(name) for name in order[step * 8 : (step + 1) * 8]]
        reported = {int(error.name) for error in damaged[step].unreadable}
        assert reported >= bad & set(own)
        assert reported <= bad


@pytest.mark.parametrize("workers", [0, 2])
def test_nothing_but_unreadable_images_is_an_error_of_one_sentence(tmp_path: Path, workers: int) -> None:
    batches = training(on_disk(tmp_path, noise(16, bad=range(16))))
    with pytest.raises(DataError) as caught:  # in a worker, too, it is the error itself
        list(load_batches(batches, 0, 2, workers))
    assert str(caught.value).startswith("16 images in a row cannot be read; mend or remove them (the last: cannot read")
    assert "\n" not in str(caught.value)


def test_neighbours_that_are_damaged_together_are_no_reason_to_stop() -> None:
    """As when a copy was cut short: the last 150 of 2000 files are empty."""
    batches = training(noise(2000, bad=range(1850, 2000)), 500)
    assert all(int(name) < 1850 for name in epoch_names(batches, 0))


def test_each_unreadable_image_is_named_once(capsys: pytest.CaptureFixture[str]) -> None:
    unreadable = UnreadableImages(100, 0.1)
    for _ in range(3):
        unreadable.note([UnreadableImage("a.png", "damaged"), UnreadableImage("b.png", "empty")])
    unreadable.note([])
    assert capsys.readouterr().err.splitlines() == [
        "left out: cannot read image a.png: damaged",
        "left out: cannot read image b.png: empty",
    ]


@pytest.mark.parametrize(("images", "share", "allowed"), [(100, 0.1, 10), (100, 0.0, 0), (15, 0.1, 1), (10, 1.0, 10)])
def test_more_than_the_share_stops(images: int, share: float, allowed: int) -> None:
    unreadable = UnreadableImages(images, share)
    for number in range(allowed):
        unreadable.note([UnreadableImage(f"{number}.png", "damaged")])
    with pytest.raises(DataError) as caught:
        unreadable.note([UnreadableImage("the last.png", "damaged")])
    assert str(caught.value) == (
        f"{allowed + 1} of {images} images cannot be read, more than --max-unreadable allows; mend or remove them, or "
        "allow a larger share (the last: cannot read image the last.png: damaged)."
    )


# ----------------------------------------------------------------------------------------------------------- evaluation


def evaluation(source: Source, rank: int = 0, world: int = 1, batch_size: int = 4) -> list[tuple[Batch, list[int]]]:
    batches = EvaluationBatches(source, CLASSES, PREPROCESS, batch_size, rank, world)
    return [batches[step] for step in range(len(batches))]


@pytest.mark.parametrize("world", [1, 2, 3, 5])
@pytest.mark.parametrize("images", [1, 3, 8, 13])
def test_all_processes_together_see_each_image_once(images: int, world: int) -> None:
    source = noise(images, bad=[2, 6] if images > 6 else [])
    made = [pair for rank in range(world) for pair in evaluation(source, rank, world)]
    numbers = [number for _, own in made for number in own]
    left_out = [int(error.name) for batch, _ in made for error in batch.unreadable]
    assert sorted(numbers + left_out) == list(range(images))
    assert sorted(left_out) == sorted(source.bad)
    for batch, own in made:
        assert batch.names == tuple(map(str, own))
        for image, number in zip(batch.images, own, strict=True):
            expected = PREPROCESS.apply(source.sample(number))[0].image
            np.testing.assert_array_equal(image.permute(1, 2, 0).numpy(), expected)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_batch_may_be_empty(tmp_path: Path, workers: int) -> None:
    batches = EvaluationBatches(on_disk(tmp_path, noise(10, bad=[4, 5, 6, 7])), CLASSES, PREPROCESS, 4)
    made = list(load_batches(batches, 0, len(batches), workers))
    assert [numbers for _, numbers in made] == [[0, 1, 2, 3], [], [8, 9]]
    empty = made[1][0]
    assert len(empty) == 0
    assert empty.images.shape == (0, 3, 8, 8)
    assert empty.images.dtype == torch.uint8
    assert empty.labels is not None
    assert empty.labels.shape == (0, CLASSES)
    assert [Path(error.name).name for error in empty.unreadable] == ["4.png", "5.png", "6.png", "7.png"]


# -------------------------------------------------------------------------------------------------------------- workers


def test_what_workers_make_is_shared_and_not_copied(strong: tuple[TrainingBatches, list[dict[str, Any]]]) -> None:
    plain = replace(strong[0], mix=Mix())
    for batch in load_batches(plain, 0, 2, 1):
        assert batch.images.is_shared()
        assert batch.images.is_contiguous(memory_format=torch.channels_last)
    for batch in load_batches(plain, 0, 2, 0):
        assert not batch.images.is_shared()


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="this system does not fork")
def test_a_batch_is_in_shared_memory_before_it_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sending a tensor would move it there, by a copy: it must be there already."""
    seen = []
    monkeypatch.setattr(loader, "get_worker_info", lambda: "a worker")
    seen.append(training(noise(16))[0].images)
    monkeypatch.undo()
    seen.append(training(noise(16))[0].images)
    assert [images.is_shared() for images in seen] == [True, False]
    assert torch.equal(*seen)


@pytest.mark.skipif(os.name != "posix", reason="signals to single processes are POSIX's")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_workers_leave_signals_to_the_main_process(
    strong: tuple[TrainingBatches, list[dict[str, Any]]], number: signal.Signals
) -> None:
    """A scheduler sends SIGTERM, and a terminal Ctrl-C, to every process of a job."""
    steps = []
    for batch in load_batches(strong[0], 0, 24, 2):
        steps.append(batch.step)
        if batch.step == 2:
            for worker in multiprocessing.active_children():
                os.kill(worker.pid or 0, number)
    assert steps == list(range(24))


@pytest.mark.parametrize(("images", "cores", "workers"), [
    (199, 64, 0), (200, 1, 1), (200, 2, 1), (2000, 6, 3), (10**6, 16, 8), (10**6, 128, 8),
])  # fmt: skip
def test_workers_by_default(images: int, cores: int, workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader.os, "sched_getaffinity", lambda process: set(range(cores)), raising=False)
    assert default_workers(images) == workers
    monkeypatch.delattr(loader.os, "sched_getaffinity")  # as on macOS and Windows
    monkeypatch.setattr(loader.os, "cpu_count", lambda: cores)
    assert default_workers(images) == workers
