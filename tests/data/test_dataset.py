"""The doorway to data: every format through it, what is refused, and the summary."""

from __future__ import annotations

import gzip
import io
import json
import struct
import tarfile
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from vitrail.data.dataset import FORMATS, open_dataset, summary
from vitrail.errors import DataError, SettingError, UnknownName

CLASSES = ("ant", "bee")
COUNT = 20  # images, alternately of the two classes


def png(value: int, colour: bool = False) -> bytes:
    buffer = io.BytesIO()
    PIL.Image.fromarray(np.full((2, 3, 3) if colour else (2, 3), value, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def make_folder(folder: Path, colour: bool = False) -> Path:
    for number in range(COUNT):
        file = folder / CLASSES[number % 2] / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(png(number, colour))
    return folder


def make_table(folder: Path, word: str) -> Path:
    make_folder(folder / "images")
    rows = [(f"images/{CLASSES[number % 2]}/{number}.png", CLASSES[number % 2]) for number in range(COUNT)]
    if word == "jsonl":
        lines = [json.dumps({"image": image, "label": label}) for image, label in rows]
    else:
        lines = [("," if word == "csv" else "\t").join(row) for row in [("image", "label"), *rows]]
    (folder / f"t.{word}").write_text("\n".join(lines))
    return folder / f"t.{word}"


def make_idx(folder: Path) -> Path:
    pixels = np.repeat(np.arange(COUNT, dtype=np.uint8), 6)
    images = struct.pack(">IIII", 2051, COUNT, 2, 3) + pixels.tobytes()
    (folder / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(images))
    labels = struct.pack(">II", 2049, COUNT) + bytes(number % 2 for number in range(COUNT))
    (folder / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(labels))
    return folder


def make_shards(folder: Path) -> Path:
    with tarfile.open(folder / "a.tar", "w") as archive:
        for number in range(COUNT):
            for ending, content in (("png", png(number)), ("cls", CLASSES[number % 2].encode())):
                info = tarfile.TarInfo(f"{number}.{ending}")
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return folder


def make_parquet(folder: Path) -> Path:
    pa = pytest.importorskip("pyarrow")
    images = [{"bytes": png(number), "path": None} for number in range(COUNT)]
    table = pa.table({"image": images, "label": [CLASSES[number % 2] for number in range(COUNT)]})
    pytest.importorskip("pyarrow.parquet").write_table(table, folder / "a.parquet")
    return folder


MAKERS = {
    "folder": make_folder,
    "csv": lambda folder: make_table(folder, "csv"),
    "tsv": lambda folder: make_table(folder, "tsv"),
    "jsonl": lambda folder: make_table(folder, "jsonl"),
    "idx": make_idx,
    "shards": make_shards,
    "parquet": make_parquet,
}


def test_every_format_is_tested() -> None:
    assert set(MAKERS) | {"digits", "shapes"} == set(FORMATS)


@pytest.mark.parametrize("given_format", [False, True])
@pytest.mark.parametrize("word", MAKERS)
def test_every_format_gives_the_same_data_set(tmp_path: Path, word: str, given_format: bool) -> None:
    data = str(MAKERS[word](tmp_path))
    dataset = open_dataset(data, word if given_format else None)
    assert dataset.name == data
    assert dataset.format == word
    assert dataset.classes == (("0", "1") if word == "idx" else CLASSES)
    assert dataset.channels == 1
    assert {split: len(source) for split, source in dataset.splits.items()} == {"train": 14, "validation": 2, "test": 4}
    seen = []
    for source in dataset.splits.values():
        for index in range(len(source)):
            sample = source.sample(index)
            assert sample.image.shape == (2, 3, 1)
            value = int(sample.image[0, 0, 0])
            seen.append(value)
            assert sample.label == source.label(index)
            assert source.label(index).index == value % 2
    assert sorted(seen) == list(range(COUNT))


def test_the_same_seed_gives_the_same_splits(tmp_path: Path) -> None:
    def held_out(seed: int) -> list[str]:
        test = open_dataset(str(make_folder(tmp_path)), seed=seed).splits["test"]
        return [test.name(index) for index in range(len(test))]

    assert held_out(1) == held_out(1)
    assert len({tuple(held_out(seed)) for seed in range(5)}) > 1


def test_digits_by_their_word() -> None:
    pytest.importorskip("sklearn")
    dataset = open_dataset("digits")
    assert list(dataset.splits) == ["train", "validation", "test"]
    assert sum(map(len, dataset.splits.values())) == 1797
    assert dataset.channels == 1


def test_shapes_by_their_word() -> None:
    dataset = open_dataset("shapes:30")
    assert dataset.format == "shapes"
    assert len(dataset.splits["train"]) == 30
    assert dataset.channels == 3
    assert dataset.splits["train"].label(0) == dataset.splits["train"].sample(0).label


def test_one_coloured_image_makes_three_channels(tmp_path: Path) -> None:
    make_folder(tmp_path)
    assert open_dataset(str(tmp_path)).channels == 1
    for number in range(0, COUNT, 2):
        (tmp_path / "ant" / f"{number}.png").write_bytes(png(number, colour=True))
    assert open_dataset(str(tmp_path)).channels == 3


def test_unreadable_images_do_not_decide_the_channels(tmp_path: Path) -> None:
    make_folder(tmp_path)
    for number in range(0, COUNT, 2):
        (tmp_path / "ant" / f"{number}.png").write_bytes(b"junk")
    assert open_dataset(str(tmp_path)).channels == 1


def test_columns_reach_the_table_and_nothing_else(tmp_path: Path) -> None:
    table = make_table(tmp_path, "csv")
    table.write_text(table.read_text().replace("image,label", "scan,finding"))
    with pytest.raises(DataError, match="it has scan, finding: name the right one with --image-column"):
        open_dataset(str(table))
    assert open_dataset(str(table), image_column="scan", label_column="finding").classes == CLASSES
    with pytest.raises(SettingError, match=r"are for tables, but .* is read as 'folder'"):
        open_dataset(str(tmp_path / "images"), image_column="scan")
    with pytest.raises(SettingError, match="are for tables, but shapes is read as 'shapes'"):
        open_dataset("shapes", label_column="x")


def test_the_format_can_be_chosen(tmp_path: Path) -> None:
    make_folder(tmp_path)
    (tmp_path / "train.csv").write_text("image,label\nant/0.png,x\n")
    with pytest.raises(DataError, match="only the class 'x'"):
        open_dataset(str(tmp_path))  # a folder with train.csv is a table
    assert open_dataset(str(tmp_path), "folder").classes == CLASSES
    (tmp_path / "table.txt").write_text((make_table(tmp_path, "tsv")).read_text())
    assert open_dataset(str(tmp_path / "table.txt"), "tsv").classes == CLASSES
    with pytest.raises(UnknownName, match="no format called 'parket'; did you mean parquet"):
        open_dataset(str(tmp_path), "parket")


@pytest.mark.parametrize("word", [word for word in FORMATS if word not in ("shapes", "digits")])
def test_a_format_that_does_not_fit_is_a_sentence(tmp_path: Path, word: str) -> None:
    (tmp_path / "notes.txt").write_text("nothing")
    for path in (tmp_path, tmp_path / "notes.txt", tmp_path / "missing"):
        with pytest.raises(DataError):
            open_dataset(str(path), word)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], "is an empty folder; DATA must be one of: digits, shapes, idx"),
        (["a.txt", "b.txt", "LICENSE"], r"is a folder with 2 \.txt, 1 without an ending; DATA must be"),
        (["a.jpg", "b.jpg"], "has no class folders .images directly in it: 2"),
        (["ant/1.png", "ant/2.png"], "has only the class 'ant'; at least two are needed"),
        (["train/ant/1.png", "train/bee/2.png", "test/cow/3.png"], "the class 'cow' occurs in test but not in train"),
        (["ant/1.png", "ant/2.png", "bee/3.png"], "the class 'bee' has a single image"),
    ],
)
def test_what_is_in_a_folder_is_said(tmp_path: Path, files: list[str], message: str) -> None:
    for number, file in enumerate(files):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_bytes(png(number))
    with pytest.raises(DataError, match=message):
        open_dataset(str(tmp_path))


def test_what_a_path_is_is_said(tmp_path: Path) -> None:
    (tmp_path / "a.zip").touch()
    (tmp_path / "LICENSE").touch()
    for name, message in (("a.zip", r"is a '\.zip' file"), ("LICENSE", "is a file without"), ("b", "does not exist")):
        with pytest.raises(DataError, match=f"{name} {message}"):
            open_dataset(str(tmp_path / name))
    with pytest.raises(DataError):
        open_dataset("a" * 5000)


def test_a_table_without_any_label_is_said(tmp_path: Path) -> None:
    (tmp_path / "1.png").write_bytes(png(1))
    (tmp_path / "t.jsonl").write_text('{"image": "1.png", "label": []}\n')
    with pytest.raises(DataError, match="has no classes"):
        open_dataset(str(tmp_path / "t.jsonl"))


def test_the_summary_tells_all(tmp_path: Path) -> None:
    sizes = {"ant": [(4, 6), (10, 2)], "bee": [(7, 3), (5, 5)]}
    for name, shapes in sizes.items():
        for split in ("train", "val", "test"):
            (tmp_path / split / name).mkdir(parents=True)
        for number, shape in enumerate(shapes):
            PIL.Image.fromarray(np.full(shape, number, np.uint8)).save(tmp_path / f"train/{name}/{number}.png")
    (tmp_path / "train/bee/broken.png").write_bytes(b"junk")
    (tmp_path / "train/bee/readme.txt").touch()
    (tmp_path / "val/ant/1.png").write_bytes(png(1))
    (tmp_path / "test/bee/copy.png").write_bytes((tmp_path / "train/bee/1.png").read_bytes())
    told = summary(open_dataset(str(tmp_path)))
    assert json.loads(json.dumps(told)) == {
        "data": str(tmp_path),
        "format": "folder",
        "many_labels": False,
        "channels": 1,
        "images": {"train": 5, "validation": 1, "test": 1},
        "classes": {
            "ant": {"train": 2, "validation": 1, "test": 0},
            "bee": {"train": 3, "validation": 0, "test": 1},
        },
        "pixels": {
            "width": {"smallest": 2, "median": 4.0, "largest": 6},
            "height": {"smallest": 4, "median": 6.0, "largest": 10},
        },
        "unreadable": [str(tmp_path / "train" / "bee" / "broken.png")],
        "notes": ["Passed over: 1 files that are no images."],
        "leaks": [f"1 image of test is also in train: {tmp_path / 'test' / 'bee' / 'copy.png'}"],
    }


def test_the_summary_of_many_labels(tmp_path: Path) -> None:
    rows = [["a"], ["a", "b"], [], ["b"], ["a"]] * 4
    lines = [json.dumps({"image": f"{number}.png", "label": labels}) for number, labels in enumerate(rows)]
    (tmp_path / "0.png").write_bytes(b"junk")
    (tmp_path / "t.jsonl").write_text("\n".join(lines))
    told = summary(open_dataset(str(tmp_path / "t.jsonl")))
    assert told["many_labels"]
    assert {name: sum(counts.values()) for name, counts in told["classes"].items()} == {"a": 12, "b": 8}
    assert told["pixels"] == {"width": None, "height": None}
    assert told["channels"] == 3
