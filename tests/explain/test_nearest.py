"""Nearest images by features, against all cosines one by one."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from vitrail import models
from vitrail.data.preprocess import Preprocess
from vitrail.data.sample import Label, Labels, Sample
from vitrail.data.source import Source
from vitrail.errors import DataError, UnreadableImage
from vitrail.explain.draw_neighbours import draw_neighbours
from vitrail.explain.nearest import known_images, nearest, neighbours
from vitrail.tasks import Classification

CLASSES = ("cat", "dog", "cow")


@dataclass(frozen=True)
class Pictures(Source):
    """Random pictures with labels in turn, of which some cannot be read."""

    count: int
    broken: tuple[int, ...] = ()
    many_labels: bool = False

    def __len__(self):
        return self.count

    def name(self, index):
        return f"{index}.png"

    def label(self, index):
        return Labels((0, index % 3)) if self.many_labels else Label(index % 3)

    def encoded(self, index):
        return b""

    def sample(self, index):
        if index in self.broken:
            raise UnreadableImage(self.name(index), "it is damaged")
        image = np.random.default_rng(index).integers(0, 256, (20, 16, 3), dtype=np.uint8)
        return Sample(image, self.name(index), self.label(index))


@pytest.fixture
def task():
    torch.manual_seed(0)
    backbone = models.create("resnet-18", width=4, depths=(1, 1), image_size=(16, 16))
    return Classification("resnet-18", backbone, CLASSES, Preprocess((16, 16))).eval()


def seen(task, image):
    return torch.from_numpy(task.preprocess.view(image)[0]).permute(2, 0, 1)[None]


@torch.no_grad()
def test_by_all_cosines(task, capsys):
    source = Pictures(23, broken=(4,))
    known = known_images(task, source, CLASSES, batch_size=5)
    assert "left out: cannot read image 4.png" in capsys.readouterr().err
    queries = torch.cat([seen(task, Pictures(40).sample(number).image) for number in (30, 7)])
    found = nearest(task, queries, known, count=3)
    vectors = {i: task.features(seen(task, source.sample(i).image)).pooled[0] for i in range(23) if i != 4}
    for query, numbers, values in zip(queries, found.numbers.tolist(), found.similarities.tolist(), strict=True):
        vector = task.features(query[None]).pooled[0]
        cosines = {i: torch.cosine_similarity(vector, other, dim=0).item() for i, other in vectors.items()}
        best = sorted(cosines, key=lambda i: -cosines[i])[:3]
        assert numbers == best
        assert values == pytest.approx([cosines[i] for i in best], abs=1e-5)
    assert found.numbers[1, 0] == 7, "an image is most like itself"
    assert found.similarities[1, 0].item() == pytest.approx(1, abs=1e-5)


def test_neighbours_come_with_their_pictures_and_classes(task):
    source = Pictures(6)
    known = known_images(task, source, CLASSES)
    found = nearest(task, seen(task, source.sample(5).image), known, count=10)
    (row,) = neighbours(known, found)
    assert len(row) == 6, "no more than there are"
    for near, number in zip(row, found.numbers[0].tolist(), strict=True):
        assert np.array_equal(near.image, source.sample(number).image)
        assert near.label == CLASSES[number % 3]
    assert row[0].label == "cow"
    draw_neighbours([(source.sample(5).image, "cow", row)])


def test_images_of_many_labels(task):
    known = known_images(task, Pictures(2, many_labels=True), CLASSES)
    ((near, _),) = neighbours(known, nearest(task, seen(task, Pictures(2).sample(1).image), known))
    assert near.label == "cat, dog"


def test_where_nothing_can_be_read(task):
    with pytest.raises(DataError, match="cannot be read"):
        known_images(task, Pictures(3, broken=(0, 1, 2)), CLASSES)
    with pytest.raises(DataError, match="there is no image to compare with"):
        known_images(task, Pictures(0), CLASSES)
