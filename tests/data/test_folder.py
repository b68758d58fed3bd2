"""Class folders: what is found, in which order, with which label."""

from __future__ import annotations

import os
import pickle
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vitrail.data.folder import open_folder, recognises
from vitrail.data.sample import Label
from vitrail.errors import DataError, UnreadableImage

needs_links = pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege on Windows")


def put(folder: Path, *files: str) -> Path:
    """Empty files: opening a folder reads no image."""
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).touch()
    return folder


def listing(root: Path, split: str = "train") -> list[tuple[str, str]]:
    """(path from ``root``, class) of every image that is found."""
    dataset = open_folder(root)
    source = dataset.splits[split]
    names = [Path(source.name(index)).relative_to(root).as_posix() for index in range(len(source))]
    return [(name, dataset.classes[source.label(index).index]) for index, name in enumerate(names)]


def test_classes_are_the_folders_in_order_of_name(tmp_path: Path) -> None:
    put(tmp_path, "dog/2.jpg", "cat/b/deep/1.PNG", "cat/a.webp", "Zebra/1.gif", "dog/10.jpg")
    dataset = open_folder(tmp_path)
    assert dataset.classes == ("Zebra", "cat", "dog")
    assert dataset.format == "folder"
    assert dataset.notes == ()
    assert not dataset.many_labels
    assert listing(tmp_path) == [
        ("Zebra/1.gif", "Zebra"),
        ("cat/a.webp", "cat"),
        ("cat/b/deep/1.PNG", "cat"),
        ("dog/10.jpg", "dog"),
        ("dog/2.jpg", "dog"),
    ]


@pytest.mark.parametrize("word", ["val", "Valid", "VALIDATION"])
def test_split_folders_by_any_of_their_names(tmp_path: Path, word: str) -> None:
    put(tmp_path, "Train/a/1.jpg", "Train/b/2.jpg", f"{word}/b/3.jpg", "test/a/4.jpg", "README.md")
    assert set(open_folder(tmp_path).splits) == {"train", "validation", "test"}
    assert listing(tmp_path, "train") == [("Train/a/1.jpg", "a"), ("Train/b/2.jpg", "b")]
    assert listing(tmp_path, "validation") == [(f"{word}/b/3.jpg", "b")]
    assert listing(tmp_path, "test") == [("test/a/4.jpg", "a")]


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    put(tmp_path, "bus/1.jpg", "train/2.jpg")
    assert open_folder(tmp_path).classes == ("bus", "train")


def test_what_is_passed_over_is_counted(tmp_path: Path) -> None:
    put(tmp_path, "a/1.jpg", "a/.DS_Store", "a/.hidden/2.jpg", "a/notes.txt", "b/3.jpg", "b/x/Thumbs.db", ".git/4.jpg")
    (tmp_path / "empty").mkdir()
    assert listing(tmp_path) == [("a/1.jpg", "a"), ("b/3.jpg", "b")]
    assert open_folder(tmp_path).notes == (
        "Class folders without images were left out: empty.",
        "Passed over: 2 files that are no images, 2 hidden files.",
    )


def test_a_test_folder_without_classes_is_left_out(tmp_path: Path) -> None:
    put(tmp_path, "train/a/1.jpg", "train/b/2.jpg", "test/3.jpg")
    dataset = open_folder(tmp_path)
    assert set(dataset.splits) == {"train"}
    assert dataset.notes == (f"{tmp_path / 'test'} has no images in class folders and was left out.",)


@needs_links
def test_links_are_followed_but_never_in_a_circle(tmp_path: Path) -> None:
    put(tmp_path, "outside/5.jpg", "data/a/1.jpg", "data/b/2.jpg", "data/b/inner/3.jpg")
    data = tmp_path / "data"
    (data / "a" / "up").symlink_to(data)
    (data / "a" / "root").symlink_to("/")
    (data / "a" / "more").symlink_to(tmp_path / "outside")
    (data / "b" / "twice").symlink_to(data / "b" / "inner")
    (data / "b" / "self").symlink_to(data / "b" / "self")
    (data / "c").symlink_to(data / "a")
    assert listing(data) == [
        ("a/1.jpg", "a"),
        ("a/more/5.jpg", "a"),
        ("b/2.jpg", "b"),
        ("b/inner/3.jpg", "b"),
        ("c/1.jpg", "c"),
        ("c/more/5.jpg", "c"),
    ]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ((), "has no class folders .images directly in it: 0"),
        (("1.jpg", "2.png", "a.txt"), "has no class folders .images directly in it: 2.; put"),
        (("a/1.txt", "b/2.txt"), "class folders in .* hold no images"),
        (("train/1.jpg", "test/2.jpg"), "train has no class folders .images directly in it: 1"),
        (("train/a/1.txt", "test/a/2.jpg"), "class folders in .*train hold no images"),
        (("val/a/1.jpg", "test/a/2.jpg"), "has test and val but no train folder"),
        (("train/a/1.jpg", "val/a/2.jpg", "valid/a/3.jpg"), "two folders for validation: val and valid"),
        (("train/a/1.jpg", "train/b/1.jpg", "test/c/2.jpg"), "the class 'c' occurs in test but not in train"),
    ],
)
def test_what_cannot_be_used_is_said(tmp_path: Path, files: tuple[str, ...], message: str) -> None:
    put(tmp_path, *files)
    with pytest.raises(DataError, match=message):
        open_folder(tmp_path)


def test_a_missing_folder_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot look into the folder .*nothing: no such file or directory"):
        open_folder(tmp_path / "nothing")


def test_recognises_folders_with_folders_or_images(tmp_path: Path) -> None:
    put(tmp_path, "a/x/1.txt", "b/1.jpg", "c/1.txt", "c/.git/2.jpg")
    assert [recognises(tmp_path / name) for name in "abc"] == [True, True, False]
    assert not recognises(tmp_path / "b/1.jpg")
    assert not recognises(tmp_path / "missing")


def test_the_source_reads_files_and_names_those_it_cannot(tmp_path: Path) -> None:
    put(tmp_path, "a/2.png", "b/3.jpg")
    pixels = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    PIL.Image.fromarray(pixels).save(tmp_path / "a/1.png")
    source = pickle.loads(pickle.dumps(open_folder(tmp_path).splits["train"]))
    sample = source.sample(0)
    assert np.array_equal(sample.image, pixels)
    assert sample.name == source.name(0) == str(tmp_path / "a" / "1.png")
    assert sample.label == source.label(0) == Label(0)
    assert source.encoded(0) == (tmp_path / "a/1.png").read_bytes()
    assert source.encoded_size(0) == (tmp_path / "a/1.png").stat().st_size
    with pytest.raises(UnreadableImage, match=r"2\.png: the file is empty"):
        source.sample(1)
    (tmp_path / "b/3.jpg").unlink()
    for read in (source.sample, source.encoded, source.encoded_size):
        with pytest.raises(UnreadableImage, match=r"3\.jpg"):
            read(2)


parts = st.lists(st.text("ab", min_size=1, max_size=2), min_size=1, max_size=4)
leaves = st.sampled_from([".jpg", ".PNG", ".txt", ""])


@settings(deadline=None, max_examples=60)
@given(paths=st.lists(st.tuples(parts, leaves), max_size=12))
def test_any_tree_gives_exactly_the_images_below_class_folders(
    paths: list[tuple[list[str], str]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp("tree")
    for folders, ending in paths:
        file = root.joinpath(*folders[:-1], f"f{folders[-1]}{ending}")  # f: a file is never named like a folder
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    below = (file.relative_to(root) for file in root.rglob("*") if file.is_file())
    expected = sorted(
        (file.parts[0], file.as_posix()) for file in below if len(file.parts) > 1 and file.suffix in (".jpg", ".PNG")
    )
    if not expected:
        with pytest.raises(DataError):
            open_folder(root)
        return
    assert listing(root) == [(file, name) for name, file in expected]


@pytest.mark.skipif("VITRAIL_DATA" not in os.environ, reason="needs photographs in $VITRAIL_DATA/clothing")
def test_real_folders_of_photographs() -> None:
    folder = Path(os.environ["VITRAIL_DATA"]) / "clothing"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there")
    dataset = open_folder(folder)
    classes = ("dress", "hat", "longsleeve", "outwear", "pants", "shirt", "shoes", "shorts", "skirt", "t-shirt")
    assert dataset.classes == classes
    for split, source in dataset.splits.items():
        assert len(source) == len(list((folder / split).rglob("*.jpg")))
        assert source.sample(len(source) - 1).image.shape[2] == 3
