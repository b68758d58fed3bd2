"""IDX files against the format's definition, on generated files and on MNIST itself."""

from __future__ import annotations

import gzip
import os
import pickle
import struct
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vitrail.data.idx import open_idx, recognises
from vitrail.errors import DataError, UserError

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 3, 5), dtype=np.uint8)
LABELS = [7, 0, 3, 3, 7, 0]


def images_bytes(pixels: np.ndarray = PIXELS) -> bytes:
    return struct.pack(">IIII", 2051, *pixels.shape) + pixels.tobytes()


def labels_bytes(labels: list[int] = LABELS) -> bytes:
    return struct.pack(">II", 2049, len(labels)) + bytes(labels)


def put(folder: Path, images: str, labels: str, images_stored: bytes, labels_stored: bytes) -> Path:
    for name, stored in ((images, images_stored), (labels, labels_stored)):
        (folder / name).write_bytes(gzip.compress(stored) if name.endswith(".gz") else stored)
    return folder / images


@pytest.mark.parametrize("zipped", ["", ".gz"])
@pytest.mark.parametrize("labels_zipped", ["", ".gz"])
@pytest.mark.parametrize("mark", ["-", "."])
def test_a_file_of_images_with_its_labels(tmp_path: Path, zipped: str, labels_zipped: str, mark: str) -> None:
    names = f"some-images{mark}idx3-ubyte{zipped}", f"some-labels{mark}idx1-ubyte{labels_zipped}"
    file = put(tmp_path, *names, images_bytes(), labels_bytes())
    assert recognises(file)
    assert recognises(tmp_path)
    for path in (file, tmp_path):
        dataset = open_idx(path)
        assert dataset.classes == ("0", "3", "7")
        assert list(dataset.splits) == ["train"]
        source = pickle.loads(pickle.dumps(dataset.splits["train"]))
        assert [dataset.classes[source.label(index).index] for index in range(len(source))] == list("703370")
        for index in range(6):
            sample = source.sample(index)
            assert np.array_equal(sample.image[:, :, 0], PIXELS[index])
            assert not sample.image.flags.writeable
            assert sample.label == source.label(index)
            assert sample.name == f"{file}#{index}"
            assert source.encoded(index) == PIXELS[index].tobytes()


@pytest.mark.parametrize("test", ["t10k", "test", "emnist-letters-test"])
def test_the_names_of_the_test_split(tmp_path: Path, test: str) -> None:
    put(tmp_path, "latest-images-idx3-ubyte", "latest-labels-idx1-ubyte", images_bytes(), labels_bytes())
    file = put(tmp_path, f"{test}-images-idx3-ubyte", f"{test}-labels-idx1-ubyte", images_bytes(), labels_bytes())
    assert {split: source.name(0) for split, source in open_idx(tmp_path).splits.items()} == {
        "train": f"{tmp_path / 'latest-images-idx3-ubyte'}#0",
        "test": f"{file}#0",
    }
    assert list(open_idx(file).splits) == ["train"]  # a single file is all there is


def test_two_files_for_one_split_are_not_mixed(tmp_path: Path) -> None:
    for name in ("letters", "mnist"):
        put(tmp_path, f"{name}-images-idx3-ubyte", f"{name}-labels-idx1-ubyte", images_bytes(), labels_bytes())
    with pytest.raises(DataError, match="two files for train: letters-images-idx3-ubyte and mnist"):
        open_idx(tmp_path)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (b"", labels_bytes(), "does not begin as an IDX file with 3 dimensions"),
        (images_bytes()[:15], labels_bytes(), "does not begin as an IDX file with 3 dimensions"),
        (labels_bytes(), labels_bytes(), "does not begin as an IDX file with 3 dimensions"),
        (images_bytes(), images_bytes(), "does not begin as an IDX file with 1 dimensions"),
        (struct.pack(">II", 0x0D03, 6), labels_bytes(), "does not begin as an IDX file with 3 dimensions"),
        (images_bytes()[:-1], labels_bytes(), "should hold 6 x 3 x 5 bytes, but holds 89"),
        (images_bytes() + b"x", labels_bytes(), "should hold 6 x 3 x 5 bytes, but holds 91"),
        (struct.pack(">IIII", 2051, 0, 3, 5), labels_bytes([]), "should hold 0"),
        (struct.pack(">IIII", 2051, 6, 0, 5), labels_bytes(), "should hold 6 x 0 x 5"),
        (struct.pack(">IIII", 2051, 2**32 - 1, 2**32 - 1, 2**32 - 1), labels_bytes(), "should hold 4294967295 x"),
        (images_bytes(), labels_bytes()[:-1], "should hold 6 bytes, but holds 5"),
        (images_bytes(), labels_bytes(LABELS[:-1]), "has 6 images but some-labels-idx1-ubyte.* has 5 labels"),
    ],
)
@pytest.mark.parametrize("zipped", ["", ".gz"])
def test_damaged_files_are_named(tmp_path: Path, images: bytes, labels: bytes, message: str, zipped: str) -> None:
    file = put(tmp_path, f"some-images-idx3-ubyte{zipped}", f"some-labels-idx1-ubyte{zipped}", images, labels)
    with pytest.raises(DataError, match=message):
        open_idx(file)


def test_a_damaged_gzip_file_and_missing_labels(tmp_path: Path) -> None:
    file = put(tmp_path, "a-images-idx3-ubyte.gz", "a-labels-idx1-ubyte.gz", images_bytes(), labels_bytes())
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(DataError, match="missing or damaged"):
        open_idx(file)
    (tmp_path / "a-labels-idx1-ubyte.gz").unlink()
    assert not recognises(file)
    assert not recognises(tmp_path)
    with pytest.raises(DataError, match="a-labels-idx1-ubyte: it is missing or damaged"):
        open_idx(file)
    with pytest.raises(DataError, match="no file called"):
        open_idx(tmp_path / "pictures.bin")


header = st.tuples(st.sampled_from([2051, 2049, 0, 2052]), *[st.integers(0, 5) | st.integers(0, 2**32 - 1)] * 3)


@settings(deadline=None, max_examples=150)
@given(
    images=st.one_of(
        st.binary(max_size=40),
        st.builds(lambda h, rest: struct.pack(">IIII", *h) + rest, header, st.binary(max_size=125)),
    ),
    labels=st.one_of(st.binary(max_size=20), st.lists(st.integers(0, 255), max_size=5).map(labels_bytes)),
    zipped=st.sampled_from(["", ".gz"]),
    packed=st.booleans(),
)
def test_garbage_gives_a_data_set_or_a_sentence(
    images: bytes, labels: bytes, zipped: str, packed: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.mktemp("idx") / f"a-images-idx3-ubyte{zipped}"
    file.write_bytes(gzip.compress(images) if packed else images)
    file.with_name(f"a-labels-idx1-ubyte{zipped}").write_bytes(gzip.compress(labels) if packed else labels)
    try:
        source = open_idx(file).splits["train"]
    except UserError:
        return
    assert len(source) == len(labels) - 8
    assert b"".join(source.encoded(index) for index in range(len(source))) == images[16:]


@pytest.mark.skipif("VITRAIL_DATA" not in os.environ, reason="needs MNIST in $VITRAIL_DATA/mnist")
def test_mnist_itself() -> None:
    folder = Path(os.environ["VITRAIL_DATA"]) / "mnist"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there")
    dataset = open_idx(folder)
    assert dataset.classes == tuple("0123456789")
    assert {split: len(source) for split, source in dataset.splits.items()} == {"train": 60_000, "test": 10_000}
    test = dataset.splits["test"]
    counts = Counter(test.label(index).index for index in range(len(test)))
    assert [counts[digit] for digit in range(10)] == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert test.sample(0).image.shape == (28, 28, 1)
    train = np.stack([dataset.splits["train"].sample(index).image for index in range(60_000)])
    assert train.mean() / 255 == pytest.approx(0.1307, abs=5e-5)  # the mean that everybody normalises MNIST with


@pytest.mark.skipif("VITRAIL_DATA" not in os.environ, reason="needs IDX files in $VITRAIL_DATA/fashion_mnist_900")
def test_fashion_mnist_of_900() -> None:
    folder = Path(os.environ["VITRAIL_DATA"]) / "fashion_mnist_900"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there")
    source = open_idx(folder).splits["train"]
    assert Counter(source.label(index).index for index in range(len(source))) == dict.fromkeys(range(10), 90)
