"""Views of a source: some of its images, or its classes under other numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vitrail.data.sample import Caption, Label, Labels, Sample
from vitrail.data.source import Relabelled, Source, Subset


@dataclass(frozen=True)
class Plain(Source):
    """Image i is one pixel of the colour i."""

    labels: Sequence[Label | Labels | None]

    def __len__(self) -> int:
        return len(self.labels)

    def name(self, index: int) -> str:
        return f"#{index}"

    def label(self, index: int) -> Label | Labels | None:
        return self.labels[index]

    def encoded(self, index: int) -> bytes:
        return bytes([index])

    def sample(self, index: int) -> Sample:
        image = np.full((1, 1, 1), index, np.uint8)
        return Sample(image, self.name(index), self.labels[index], caption=Caption((f"image {index}",)))


LABELS = (Label(0), Label(2), Label(1), Label(0), Labels((0, 2)), Labels(()), None)
SOURCE = Plain(LABELS)


def read(source: Source, index: int) -> tuple[object, ...]:
    """All that a source says of an image."""
    sample = source.sample(index)
    assert (sample.name, sample.label) == (source.name(index), source.label(index))
    return source.name(index), source.label(index), source.encoded(index), sample.image.tobytes(), sample.caption


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(0, len(LABELS) - 1)))
def test_a_subset_has_its_images_in_its_order(indices: list[int]) -> None:
    subset = Subset(SOURCE, indices)
    assert [read(subset, index) for index in range(len(subset))] == [read(SOURCE, index) for index in indices]


def test_a_subset_of_a_subset_and_of_an_array_of_indices() -> None:
    inner = Subset(SOURCE, np.array([5, 3, 1]))
    assert [Subset(inner, [2, 0]).name(index) for index in range(2)] == ["#1", "#5"]


@pytest.mark.parametrize("index", [2, 7])
def test_a_subset_ends(index: int) -> None:
    with pytest.raises(IndexError):
        Subset(SOURCE, [0, 1]).sample(index)


def test_relabelled_only_the_numbers_of_the_classes_change() -> None:
    """Class 0 is called 5 here, class 1 is 3, class 2 is 4."""
    renamed = Relabelled(SOURCE, [5, 3, 4])
    expected = [Label(5), Label(4), Label(3), Label(5), Labels((4, 5)), Labels(()), None]
    assert len(renamed) == len(SOURCE)
    for index, label in enumerate(expected):
        name, _, *rest = read(SOURCE, index)
        assert read(renamed, index) == (name, label, *rest)
