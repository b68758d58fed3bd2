"""Parquet files as the Hugging Face Hub stores images, written with pyarrow."""

from __future__ import annotations

import io
import json
import multiprocessing
import pickle
import sys
import warnings
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from vitrail.data import parquet
from vitrail.data.parquet import ParquetImages, open_parquet, recognises
from vitrail.data.sample import Labels
from vitrail.errors import DataError, SettingError, UnreadableImage

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")


def png(value: int) -> bytes:
    buffer = io.BytesIO()
    PIL.Image.fromarray(np.full((2, 3), value, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def features(label: object) -> dict[bytes, bytes]:
    """The metadata that the library ``datasets`` writes into a schema."""
    info = {"info": {"features": {"image": {"_type": "Image"}, "label": label}}}
    return {b"huggingface": json.dumps(info).encode()}


def write(
    path: Path,
    labels: list,
    *,
    first: int = 0,
    image: str = "image",
    label: str = "label",
    rows: int = 2,
    metadata=None,
) -> Path:
    """Images first, first + 1, … as their pixels' value, in row groups of ``rows``."""
    images = [{"bytes": png(first + row), "path": f"{row}.png"} for row in range(len(labels))]
    table = pa.table({"id": list(range(len(labels))), image: images, label: labels}).replace_schema_metadata(metadata)
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=rows)
    return path


def pixels(source: ParquetImages) -> list[int]:
    return [int(source.sample(index).image[0, 0, 0]) for index in range(len(source))]


CLASS_LABEL = {"names": ["zebra", "ant", "bee"], "_type": "ClassLabel"}


def test_names_of_the_classes_come_from_the_schema(tmp_path: Path) -> None:
    dataset = open_parquet(write(tmp_path / "a.parquet", [2, 0, 0, 2, 0], metadata=features(CLASS_LABEL)))
    assert dataset.classes == ("zebra", "ant", "bee")
    source = pickle.loads(pickle.dumps(dataset.splits["train"]))
    assert [source.label(index).index for index in range(5)] == [2, 0, 0, 2, 0]
    assert pixels(source) == [0, 1, 2, 3, 4]
    assert [source.name(index) for index in range(5)] == [f"{tmp_path / 'a.parquet'}#{row}" for row in range(5)]
    assert source.encoded(3) == png(3)
    assert source.sample(3).label == source.label(3)


@pytest.mark.parametrize("feature", [[CLASS_LABEL], {"feature": CLASS_LABEL, "_type": "List"}])
def test_lists_of_labels(tmp_path: Path, feature: object) -> None:
    dataset = open_parquet(write(tmp_path / "a.parquet", [[2, 0], [], [1]], metadata=features(feature)))
    assert dataset.many_labels
    assert dataset.classes == ("zebra", "ant", "bee")
    assert [dataset.splits["train"].label(index) for index in range(3)] == [Labels((0, 2)), Labels(()), Labels((1,))]


@pytest.mark.parametrize("metadata", [None, {b"huggingface": b"{"}, {b"huggingface": b'{"info": null}'}, features([])])
@pytest.mark.parametrize(("labels", "classes"), [(["b", "a"], ("a", "b")), ([10, 9], ("9", "10"))])
def test_without_names_the_labels_name_themselves(
    tmp_path: Path, metadata: dict | None, labels: list, classes: tuple[str, ...]
) -> None:
    dataset = open_parquet(write(tmp_path / "a.parquet", labels, metadata=metadata))
    assert dataset.classes == classes
    assert [dataset.classes[dataset.splits["train"].label(index).index] for index in range(2)] == list(map(str, labels))


def test_plain_bytes_and_dictionary_labels(tmp_path: Path) -> None:
    labels = pa.array(["b", "a"]).dictionary_encode()
    pq.write_table(pa.table({"img": [png(5), png(6)], "class": labels}), tmp_path / "a.parquet")
    dataset = open_parquet(tmp_path / "a.parquet")
    assert dataset.classes == ("a", "b")
    assert pixels(dataset.splits["train"]) == [5, 6]


@pytest.mark.parametrize("folder", ["", "data"])
def test_several_files_and_splits_as_on_the_hub(tmp_path: Path, folder: str) -> None:
    write(tmp_path / folder / "train-00000-of-00002-ab12.parquet", ["a", "b", "a"])
    write(tmp_path / folder / "train-00001-of-00002-cd34.parquet", ["b"], first=3)
    write(tmp_path / folder / "test-00000-of-00001.parquet", ["a"], first=4)
    write(tmp_path / "elsewhere" / "train.parquet", ["z"], first=9)
    assert recognises(tmp_path)
    dataset = open_parquet(tmp_path)
    assert set(dataset.splits) == {"train", "test"}
    assert pixels(dataset.splits["train"]) == [0, 1, 2, 3]
    assert pixels(dataset.splits["test"]) == [4]


def test_splits_by_folder(tmp_path: Path) -> None:
    write(tmp_path / "train" / "0000.parquet", ["a", "b"])
    write(tmp_path / "validation" / "0000.parquet", ["b"], first=2)
    dataset = open_parquet(tmp_path)
    assert {split: pixels(source) for split, source in dataset.splits.items()} == {"train": [0, 1], "validation": [2]}


@pytest.mark.parametrize("secret", [-1, None])
def test_a_split_with_secret_labels_is_left_out(tmp_path: Path, secret: int | None) -> None:
    write(tmp_path / "train.parquet", [0, 1], metadata=features(CLASS_LABEL))
    write(tmp_path / "test.parquet", [secret, secret], metadata=features(CLASS_LABEL))
    dataset = open_parquet(tmp_path)
    assert set(dataset.splits) == {"train"}
    assert dataset.notes == ("The test split has no labels and was left out.",)


def test_named_columns(tmp_path: Path) -> None:
    file = write(tmp_path / "a.parquet", ["x", "y"], image="scan", label="fine_label")
    with pytest.raises(DataError, match=r"no column 'image' or .*; it has id, scan, fine_label: .*--image-column"):
        open_parquet(file)
    with pytest.raises(DataError, match="--label-column"):
        open_parquet(file, image_column="scan")
    assert open_parquet(file, image_column="scan", label_column="fine_label").classes == ("x", "y")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 3], r"a\.parquet#1: the label 3 is none of the 3 classes"),
        ([0, -1], r"a\.parquet#1: the label -1 is none of the 3 classes"),
        ([0, None], r"a\.parquet#1: a label must be"),
        ([0.5, 1.5], r"a\.parquet#0: a label must be"),
        ([[0], [None]], r"a\.parquet#1: a label must be"),
        (["a", " "], r"a\.parquet#1: a label must be"),
    ],
)
def test_labels_that_cannot_be_used_are_named(tmp_path: Path, labels: list, message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_parquet(write(tmp_path / "a.parquet", labels, metadata=features(CLASS_LABEL)))


def test_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no \.parquet file"):
        open_parquet(tmp_path)
    with pytest.raises(DataError, match="missing or damaged"):
        open_parquet(tmp_path / "a.parquet")
    stored = write(tmp_path / "a.parquet", ["a", "b"]).read_bytes()
    for damaged in (b"", stored[:-8], stored[:100], b"PAR1" + bytes(50) + b"PAR1"):
        (tmp_path / "a.parquet").write_bytes(damaged)
        with pytest.raises(DataError, match="missing or damaged"):
            open_parquet(tmp_path / "a.parquet")
    write(tmp_path / "a.parquet", ["a", "b"])
    write(tmp_path / "b.parquet", ["a", "b"], label="other")
    with pytest.raises(DataError, match=r"b\.parquet has no column 'label', unlike the files before it"):
        open_parquet(tmp_path)


def test_rows_without_an_image_are_unreadable(tmp_path: Path) -> None:
    images = [{"bytes": None, "path": "1.png"}, None, {"bytes": b"junk", "path": None}, {"bytes": png(7), "path": None}]
    pq.write_table(pa.table({"image": images, "label": list("abab")}), tmp_path / "a.parquet")
    source = open_parquet(tmp_path / "a.parquet").splits["train"]
    for index in range(3):
        with pytest.raises(UnreadableImage, match=rf"a\.parquet#{index}"):
            source.sample(index)
    assert source.sample(3).image[0, 0, 0] == 7


def test_a_file_that_disappears_makes_its_images_unreadable(tmp_path: Path) -> None:
    source = open_parquet(write(tmp_path / "a.parquet", ["a", "b"])).splits["train"]
    (tmp_path / "a.parquet").unlink()
    with pytest.raises(UnreadableImage, match=r"a\.parquet#0"):
        source.sample(0)


def test_only_so_many_bytes_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = open_parquet(write(tmp_path / "a.parquet", list("abababab"))).splits["train"]
    assert isinstance(source, ParquetImages)
    monkeypatch.setattr(parquet, "_kept", type(parquet._kept)())
    source.sample(0)
    monkeypatch.setattr(parquet, "KEPT_BYTES", int(2.5 * sum(values.nbytes for values in parquet._kept.values())))
    for index in (2, 0, 4):  # groups 1, 0 and 2: group 1 was used longest ago
        source.sample(index)
    assert [group for _, group, _ in parquet._kept] == [0, 2]
    assert pixels(source) == list(range(8))


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="this system does not fork")
def test_a_forked_worker_reads_what_its_parent_has_opened(tmp_path: Path) -> None:
    source = open_parquet(write(tmp_path / "a.parquet", list("ababab"))).splits["train"]
    assert isinstance(source, ParquetImages)
    source.sample(0)
    context = multiprocessing.get_context("fork")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python warns of forks beside threads
        with context.Pool(1) as pool:
            assert pool.apply_async(pixels, (source,)).get(timeout=60) == list(range(6))


def test_without_pyarrow_the_remedy_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path / "a.parquet", ["a", "b"])
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert recognises(file)
    with pytest.raises(SettingError, match=r"pip install 'vitrail\[data\]'"):
        open_parquet(file)
