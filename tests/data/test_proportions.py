"""Images at their own proportions: the grids they get, the way back, and the rows they are put into."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vitrail.data.files import Files
from vitrail.data.loader import load_batches
from vitrail.data.preprocess import Preprocess
from vitrail.data.proportions import PackedBatch, PackedBatches, Proportions, in_rows, nearest_grid
from vitrail.data.sample import Boxes, Label, Sample
from vitrail.data.source import Source
from vitrail.errors import UnreadableImage

SIDES = st.integers(1, 5000)
OWN = Preprocess((224, 224), "crop", 0.875)


def picture(height: int, width: int, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(height * width).integers(0, 256, (height, width, channels), dtype=np.uint8)


@pytest.mark.parametrize(
    ("size", "grid"),
    [
        ((224, 224), (14, 14)),
        ((30, 40), (12, 16)),  # exactly its proportions
        ((480, 640), (12, 16)),
        ((640, 480), (16, 12)),
        ((1080, 1920), (10, 18)),  # 1.8, where 10 x 19 is further from 1.78, and 11 x 18 has too many
        ((400, 600), (11, 17)),
        ((100, 1000), (4, 44)),
        ((1, 1000), (1, 196)),  # thinner than a patch can be
    ],
)
def test_grids_of_at_most_196_patches(size, grid):
    assert nearest_grid(size, 196) == grid


@given(SIDES, SIDES, st.integers(1, 600))
@settings(max_examples=200)
def test_a_grid_has_at_least_one_patch_and_at_most_as_many_as_allowed(height, width, tokens):
    rows, columns = nearest_grid((height, width), tokens)
    assert rows >= 1
    assert columns >= 1
    assert rows * columns <= tokens


@given(SIDES, SIDES, st.integers(1, 300))
@settings(max_examples=100)
def test_a_turned_image_has_the_turned_grid(height, width, tokens):
    assert nearest_grid((height, width), tokens) == nearest_grid((width, height), tokens)[::-1]


@given(st.integers(50, 5000), st.integers(50, 5000), st.integers(64, 600))
@settings(max_examples=100)
def test_no_grid_of_as_many_patches_is_nearer_to_the_proportions(height, width, tokens):
    """By brute force over all grids that use at least as much of the limit."""
    if not 1 / 3 < height / width < 3:
        return

    def distortion(rows: int, columns: int) -> float:
        return abs(math.log(columns * height / (rows * width)))

    grid = nearest_grid((height, width), tokens)
    others = [(r, c) for r in range(1, tokens + 1) for c in range(1, tokens // r + 1) if r * c >= math.prod(grid)]
    assert distortion(*grid) <= min(distortion(*other) for other in others) + 1e-9
    assert math.prod(grid) > 0.75 * tokens


@pytest.mark.parametrize(
    ("tokens", "size", "patches"),
    [
        (None, (40, 40), 196),  # enlarged to what the model is used to
        (None, (4000, 4000), 196),
        (576, (4000, 4000), 576),
        (576, (40, 40), 196),  # not enlarged beyond
        (576, (320, 320), 400),  # all of its own pixels
        (49, (40, 40), 49),
    ],
)
def test_how_many_patches_a_square_image_gets(tokens, size, patches):
    assert math.prod(Proportions(OWN, 16, tokens).grid(size)) == patches


@pytest.mark.parametrize(("height", "width"), [(60, 40), (333, 517), (1000, 90), (7, 8), (1, 300)])
@pytest.mark.parametrize("channels", [1, 3])
def test_all_of_the_image_is_resized_as_pillow_does_it(height, width, channels):
    image = picture(height, width, channels)
    prepared, geometry = Proportions(OWN, 16).apply(Sample(image, "x"))
    rows, columns = nearest_grid((height, width), 196)
    whole = Image.fromarray(np.repeat(image, 3, axis=2) if channels == 1 else image)
    expected = whole.resize((16 * columns, 16 * rows), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(prepared.image, np.asarray(expected))
    corners = geometry.apply(np.array([[0, 0], [width, height]]))
    np.testing.assert_allclose(corners, [[0, 0], [16 * columns, 16 * rows]])
    np.testing.assert_allclose(geometry.inverse.apply(corners), [[0, 0], [width, height]], atol=1e-9)


def test_boxes_move_along():
    boxes = Boxes(np.array([[0, 0, 50, 30]], np.float32), np.array([1]))
    moved = Proportions(OWN, 16).apply(Sample(picture(60, 100), "x", boxes=boxes))[0]
    assert moved.boxes is not None
    height, width = moved.image.shape[:2]
    np.testing.assert_allclose(moved.boxes.xyxy, [[0, 0, width / 2, height / 2]], atol=1e-4)


# ---- rows ----


@dataclass(frozen=True)
class Pictures(Source):
    """Pictures of given sizes, each of one colour, which is its number; a size of None cannot be read."""

    sizes: tuple[tuple[int, int] | None, ...]

    def __len__(self) -> int:
        return len(self.sizes)

    def name(self, index: int) -> str:
        return f"picture {index}"

    def label(self, index: int) -> Label:
        return Label(index % 3)

    def encoded(self, index: int) -> bytes:
        return b""

    def sample(self, index: int) -> Sample:
        size = self.sizes[index]
        if size is None:
            raise UnreadableImage(self.name(index), "damaged")
        return Sample(np.full((*size, 3), index, np.uint8), self.name(index), self.label(index))


SMALL = Proportions(Preprocess((16, 16)), 4, tokens=64)
SIZES = ((30, 30), (16, 16), None, (10, 40), (16, 16), (32, 32), (20, 20), (40, 10), (16, 16))


def images_in(batch: PackedBatch) -> list[torch.Tensor]:
    return [image for row in batch.rows for group in row for image in group]


def test_every_readable_image_is_there_once_with_its_number_and_its_label():
    batches = PackedBatches(Pictures(SIZES), 3, SMALL, batch_size=4)
    found = []
    for batch, numbers in (batches[step] for step in range(len(batches))):
        assert len(batch) == len(numbers) == len(images_in(batch))
        for image, number, label in zip(images_in(batch), numbers, batch.labels, strict=True):
            size = SIZES[number]
            assert image.unique().tolist() == [number]
            assert tuple(image.shape[1:]) == tuple(4 * side for side in SMALL.grid(size))
            assert label.tolist() == [float(number % 3 == k) for k in range(3)]
            found.append(number)
    assert sorted(found) == [0, 1, 3, 4, 5, 6, 7, 8]
    assert [error.name for step in range(3) for error in batches[step][0].unreadable] == ["picture 2"]


def test_images_of_one_size_are_one_group():
    batch, _ = PackedBatches(Pictures(SIZES), 3, SMALL, batch_size=9)[0]
    for row in batch.rows:
        assert len({tuple(group.shape[1:]) for group in row}) == len(row)


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), max_size=12), st.integers(1, 100))
@settings(deadline=None, max_examples=60)
def test_a_row_is_as_full_as_it_may_be(sizes, pixels):
    samples = [Sample(np.zeros((*size, 3), np.uint8), str(number)) for number, size in enumerate(sizes)]
    rows = in_rows(samples, pixels)
    assert [each.name for row in rows for each in row] == [each.name for each in samples]
    filled = [sum(math.prod(each.image.shape[:2]) for each in row) for row in rows]
    assert all(full <= pixels or len(row) == 1 for full, row in zip(filled, rows, strict=True))
    for full, row in zip(filled, rows[1:], strict=False):
        assert full + math.prod(row[0].image.shape[:2]) > pixels


def test_a_row_has_no_more_than_a_batch_of_the_models_own_images():
    batches = PackedBatches(Pictures(((64, 64),) * 10), 3, SMALL, batch_size=8)
    rows = [sum(group[:, 0].numel() for group in row) for row in batches[0][0].rows]
    assert rows == [8 * 16 * 16] * 4  # 8 images of 64 patches each, two in a row


def test_of_nothing_but_damaged_images_the_batch_is_empty():
    batch, numbers = PackedBatches(Pictures((None, None)), 3, SMALL, batch_size=4)[0]
    assert (len(batch), numbers, len(batch.unreadable)) == (0, [], 2)


def test_workers_change_nothing():
    batches = PackedBatches(Pictures(SIZES), 3, SMALL, batch_size=4)
    here, there = (list(load_batches(batches, 0, len(batches), workers)) for workers in (0, 2))
    for (one, numbers), (same, others) in zip(here, there, strict=True):
        assert numbers == others
        assert all(torch.equal(a, b) for a, b in zip(images_in(one), images_in(same), strict=True))


def test_processes_share_the_images():
    seen = [
        PackedBatches(Pictures(SIZES), 3, SMALL, batch_size=2, rank=rank, world=2)[step][1]
        for rank in (0, 1)
        for step in range(2)
    ]
    assert sorted(number for numbers in seen for number in numbers) == [0, 1, 3, 4, 5, 6, 7]


def test_without_labels_there_are_none(tmp_path: Path):
    for number, size in enumerate([(30, 20), (16, 16)]):
        Image.fromarray(picture(*size)).save(tmp_path / f"{number}.png")
    batch, numbers = PackedBatches(Files(sorted(tmp_path.iterdir())), 0, SMALL, batch_size=4)[0]
    assert batch.labels is None
    assert sorted(numbers) == [0, 1]
