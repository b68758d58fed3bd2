"""Images without labels, wherever they lie."""

import numpy as np
import pytest
from PIL import Image

from vitrail.data.unlabelled import open_images
from vitrail.errors import DataError


def paint(folder, names, mode="RGB"):
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8, 3), number, np.uint8)).convert(mode).save(path)


def test_a_folder_of_images_however_deep(tmp_path):
    paint(tmp_path, [f"{number}.png" for number in range(30)] + ["a/b/c.png", ".hidden/d.png"])
    dataset = open_images(str(tmp_path))
    names = {source.name(i) for source in dataset.splits.values() for i in range(len(source))}
    assert {split: len(source) for split, source in dataset.splits.items()} == {"train": 29, "validation": 2}
    assert len(names) == 31
    assert any(name.endswith("c.png") for name in names)
    assert dataset.channels == 3
    assert dataset.classes == ()


def test_the_split_is_the_seeds(tmp_path):
    paint(tmp_path, [f"{number}.png" for number in range(30)])

    def held(seed):
        return [open_images(str(tmp_path), seed=seed).splits["validation"].name(i) for i in range(2)]

    assert held(0) == held(0) != held(1)


def test_class_folders_have_the_splits_that_they_have_for_training(tmp_path):
    paint(tmp_path, [f"{name}/{number}.png" for name in ("cat", "dog") for number in range(20)])
    dataset = open_images(str(tmp_path))
    assert dataset.classes == ("cat", "dog")
    assert set(dataset.splits) == {"train", "validation", "test"}


def test_grey_images_have_one_channel(tmp_path):
    paint(tmp_path, [f"{number}.png" for number in range(5)], "L")
    assert open_images(str(tmp_path)).channels == 1


def test_everything_as_given(tmp_path):
    paint(tmp_path, ["0.png"])
    assert {split: len(source) for split, source in open_images(str(tmp_path), as_given=True).splits.items()} == {
        "train": 1
    }


def test_too_few_images_are_refused(tmp_path):
    paint(tmp_path, ["0.png", "1.png"])
    with pytest.raises(DataError, match="holds 2 images, too few"):
        open_images(str(tmp_path))


def test_what_is_no_folder_is_refused_as_ever(tmp_path):
    (tmp_path / "a.txt").write_text("no images")
    with pytest.raises(DataError):
        open_images(str(tmp_path / "a.txt"))
