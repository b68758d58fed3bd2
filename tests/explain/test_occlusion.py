"""Occlusion against brute force, and how an image is covered."""

import numpy as np
import pytest
import torch

from vitrail import models
from vitrail.data.preprocess import Preprocess
from vitrail.explain.occlusion import log_probability, occlusion, tiling
from vitrail.tasks import Classification

MEAN = (51, 128, 178)  # a colour that pixels can have
CLASSES = torch.tensor([2, 0])


def a_task(name="resnet-18", classes=("a", "b", "c"), many_labels=False, **changes):
    torch.manual_seed(0)
    changes = changes or {"width": 4, "depths": (1, 1), "image_size": (18, 13)}
    backbone = models.create(name, **changes)
    preprocess = Preprocess(backbone.config.image_size, mean=tuple(value / 255 for value in MEAN))
    task = Classification(name, backbone, classes, preprocess, many_labels=many_labels, temperature=1.5)
    torch.nn.init.normal_(task.head.linear.weight)
    return task.eval()


def photographs(task):
    return torch.randint(0, 256, (2, 3, *task.preprocess.size), dtype=torch.uint8)


@torch.no_grad()
def test_every_square_by_hand():
    task = a_task()
    images = photographs(task)
    maps = occlusion(task, images, CLASSES)
    normalised = task.preprocess.normalize(images)
    side, tops, lefts = 3, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15], [*range(11)]
    for image, label, heat in zip(normalised, CLASSES.tolist(), maps, strict=True):
        falls = [[[] for _ in range(13)] for _ in range(18)]
        before = task.scores(task(image[None]))[0, label].log().item()
        for top in tops:
            for left in lefts:
                covered = image.clone()
                covered[:, top : top + side, left : left + side] = 0
                fall = before - task.scores(task(covered[None]))[0, label].log().item()
                for row in range(top, top + side):
                    for column in range(left, left + side):
                        falls[row][column].append(fall)
        expected = np.array([[max(0, np.mean(places)) for places in row] for row in falls])
        assert expected.max() > 0.01
        np.testing.assert_allclose(heat.numpy(), expected, atol=2e-6)


@pytest.mark.parametrize(
    ("height", "width", "patch"), [(224, 224, 16), (224, 224, 1), (32, 32, 4), (8, 8, 2), (96, 64, 32)]
)
def test_squares_cover_the_image_and_cut_no_patch(height, width, patch):
    squares = tiling(height, width, patch)
    times = np.zeros((height, width), int)
    for rows, columns in squares:
        assert rows.stop - rows.start == columns.stop - columns.start
        assert 0 <= rows.start < rows.stop <= height
        assert 0 <= columns.start < columns.stop <= width
        assert all(edge % patch == 0 for edge in (rows.start, rows.stop, columns.start, columns.stop))
        times[rows, columns] += 1
    assert times.min() >= 1
    assert len({(rows.start, columns.start) for rows, columns in squares}) == len(squares)


@pytest.mark.parametrize(("height", "width", "patch"), [(1, 1, 1), (3, 50, 1), (17, 23, 1), (28, 28, 14), (5, 7, 9)])
def test_images_of_any_size_are_covered(height, width, patch):
    times = np.zeros((height, width), int)
    for rows, columns in tiling(height, width, patch if patch <= min(height, width) else 1):
        times[rows, columns] += 1
    assert times.min() >= 1


def test_squares_are_a_quarter_of_the_side_and_overlap_by_half():
    assert [(rows.start, rows.stop) for rows, columns in tiling(224, 224, 1) if columns.start == 0] == [
        (start, start + 56) for start in range(0, 169, 28)
    ]
    assert len(tiling(224, 224, 16)) == 36


def test_log_probability_is_that_of_the_scores():
    logits = torch.randn(5, 3)
    for many_labels in (False, True):
        task = a_task(many_labels=many_labels)
        for number in range(3):
            expected = task.scores(logits)[:, number].log()
            torch.testing.assert_close(log_probability(task, logits, torch.tensor(number)), expected)


def test_log_probability_tells_apart_what_is_nearly_certain():
    task = a_task()
    logits = torch.tensor([[60.0, 0, 0], [61.0, 0, 0]])
    sure, surer = log_probability(task, logits, torch.tensor(0)).tolist()
    assert sure == pytest.approx(-2 * np.exp(-60 / 1.5), rel=1e-4)
    assert surer == pytest.approx(-2 * np.exp(-61 / 1.5), rel=1e-4)


def test_a_model_of_one_class_finds_that_nothing_matters_to_it():
    task = a_task(classes=("a",))
    assert not occlusion(task, photographs(task), torch.tensor([0, 0])).any()


def test_only_what_is_covered_with_another_colour_matters():
    task = a_task("vit-b16", width=16, depth=1, heads=2, mlp=16, patch_size=4, image_size=(16, 16))
    images = torch.tensor(MEAN, dtype=torch.uint8)[:, None, None].repeat(2, 1, 16, 16)
    images[:, :, 8:12, 4:8] = torch.randint(0, 256, (2, 3, 4, 4), dtype=torch.uint8)
    heat = sum(occlusion(task, images, torch.full((2,), number)) for number in range(3))  # one of them loses
    assert (heat[:, 8:12, 4:8] > 1e-3).all()
    heat[:, 8:12, 4:8] = 0
    assert heat.max() < 1e-5
