"""Tables of images: CSV, TSV and JSON Lines, sound and damaged."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vitrail.data.sample import Label, Labels
from vitrail.data.source import Dataset
from vitrail.data.table import find_column, open_table, recognises
from vitrail.errors import DataError, UnreadableImage, UserError


def write(folder: Path, name: str, text: str, images: str = "1.jpg 2.jpg 3.jpg 4.jpg") -> Path:
    """A table beside empty image files: opening a table reads no image."""
    for image in images.split():
        (folder / image).touch()
    (folder / name).write_text(text, encoding="utf-8", newline="")
    return folder / name


def listing(dataset: Dataset, split: str = "train") -> list[tuple[str, object]]:
    """File name and class name, or names, of every image."""
    source = dataset.splits[split]
    names = []
    for index in range(len(source)):
        label = source.label(index)
        indices = [label.index] if isinstance(label, Label) else label.indices
        classes = [dataset.classes[number] for number in indices]
        names.append((Path(source.name(index)).name, classes if dataset.many_labels else classes[0]))
    return names


@pytest.mark.parametrize(
    ("word", "text"),
    [
        ("csv", "image,label\n1.jpg,dog\n2.jpg,cat\n"),
        ("csv", "\ufeffLabel,x,Image Path\r\ndog,,1.jpg\r\n\r\ncat,,2.jpg\r\n"),
        ("csv", 'file_name,class\n"1.jpg"," dog "\n 2.jpg,"cat"'),
        ("tsv", "path\tcategory\n1.jpg\tdog\n2.jpg\tcat\n"),
        ("jsonl", '{"filepath": "1.jpg", "target": "dog"}\n\n{"target": "cat", "filepath": "2.jpg", "more": [1]}\n'),
    ],
)
def test_the_usual_columns_are_found(tmp_path: Path, word: str, text: str) -> None:
    dataset = open_table(write(tmp_path, f"t.{word}", text), word)
    assert dataset.classes == ("cat", "dog")
    assert dataset.format == word
    assert not dataset.many_labels
    assert listing(dataset) == [("1.jpg", "dog"), ("2.jpg", "cat")]
    assert dataset.splits["train"].name(0) == str(tmp_path / "1.jpg")


def test_the_order_of_usual_names_decides_and_given_names_win(tmp_path: Path) -> None:
    table = write(tmp_path, "t.csv", "class,label,file,image\nA,x,3.jpg,1.jpg\nB,y,4.jpg,2.jpg\n")
    assert listing(open_table(table, "csv")) == [("1.jpg", "x"), ("2.jpg", "y")]
    named = open_table(table, "csv", image_column="file", label_column="class")
    assert listing(named) == [("3.jpg", "A"), ("4.jpg", "B")]


def test_a_missing_column_tells_the_columns_there_are_and_the_flag(tmp_path: Path) -> None:
    table = write(tmp_path, "t.csv", "photo,label\n1.jpg,x\n")
    with pytest.raises(DataError, match=r"has no column 'image' or .*; it has photo, label: .* --image-column"):
        open_table(table, "csv")
    with pytest.raises(DataError, match=r"has no column 'kind'; it has photo, label: .* --label-column"):
        open_table(table, "csv", image_column="photo", label_column="kind")


def test_find_column_prefers_the_first_of_two_equal_names() -> None:
    assert find_column("t", ["Image_Path", "image path"], ["imagepath"], "--flag") == "Image_Path"


def test_classes_that_are_numbers_are_in_the_order_of_numbers(tmp_path: Path) -> None:
    text = "image,label\n1.jpg,10\n2.jpg,9\n3.jpg,1\n"
    assert open_table(write(tmp_path, "t.csv", text), "csv").classes == ("1", "9", "10")
    lines = "\n".join(json.dumps({"image": f"{number}.jpg", "label": number}) for number in (4, 2, 1))
    assert open_table(write(tmp_path, "t.jsonl", lines), "jsonl").classes == ("1", "2", "4")


@pytest.mark.parametrize("mark", ["|", ";"])
def test_several_labels_in_a_cell(tmp_path: Path, mark: str) -> None:
    dataset = open_table(
        write(tmp_path, "t.csv", f"image,tags\n1.jpg,sea{mark} sky\n2.jpg,\n3.jpg,sky{mark}{mark}sky\n"), "csv"
    )
    assert dataset.many_labels
    assert dataset.classes == ("sea", "sky")
    assert listing(dataset) == [("1.jpg", ["sea", "sky"]), ("2.jpg", []), ("3.jpg", ["sky"])]
    assert dataset.splits["train"].label(1) == Labels(())
    assert dataset.notes == (f"An image may have several labels, separated by '{mark}'.",)


def test_several_labels_in_json(tmp_path: Path) -> None:
    lines = ['["b;c", "a"]', "[]", '"a"', "null", "[3, true]"]
    text = "\n".join(f'{{"image": "{number}.jpg", "labels": {labels}}}' for number, labels in enumerate(lines))
    dataset = open_table(write(tmp_path, "t.jsonl", text), "jsonl")
    assert dataset.classes == ("3", "True", "a", "b;c")
    assert [labels for _, labels in listing(dataset)] == [["a", "b;c"], [], ["a"], [], ["3", "True"]]


def test_a_split_column(tmp_path: Path) -> None:
    text = "image,label,split\n1.jpg,a,train\n2.jpg,b,Test\n3.jpg,a,val\n4.jpg,b,train\n"
    dataset = open_table(write(tmp_path, "t.csv", text), "csv")
    assert listing(dataset, "train") == [("1.jpg", "a"), ("4.jpg", "b")]
    assert listing(dataset, "validation") == [("3.jpg", "a")]
    assert listing(dataset, "test") == [("2.jpg", "b")]
    with pytest.raises(DataError, match="line 3: the split 'holdout' is none of train"):
        open_table(write(tmp_path, "t.csv", text.replace("Test", "holdout")), "csv")


@pytest.mark.parametrize("validation", ["val", "validation"])
@pytest.mark.parametrize(("word", "mark"), [("csv", ","), ("tsv", "\t")])
def test_a_folder_of_tables(tmp_path: Path, validation: str, word: str, mark: str) -> None:
    for name, image, label in (("train", "1.jpg", "a"), (validation, "2.jpg", "a"), ("test", "3.jpg", "a")):
        write(tmp_path, f"{name}.{word}", f"image{mark}label\n{image}{mark}{label}\n")
    assert recognises(tmp_path, word)
    dataset = open_table(tmp_path, word)
    assert {split: listing(dataset, split) for split in dataset.splits} == {
        "train": [("1.jpg", "a")],
        "validation": [("2.jpg", "a")],
        "test": [("3.jpg", "a")],
    }


def test_a_folder_of_tables_must_fit_together(tmp_path: Path) -> None:
    write(tmp_path, "train.csv", "image,label\n1.jpg,a\n")
    write(tmp_path, "test.csv", "image,label\n2.jpg,z\n")
    with pytest.raises(DataError, match="the class 'z' occurs in test but not in train"):
        open_table(tmp_path, "csv")
    write(tmp_path, "testing.csv", "image,label\n2.jpg,a\n")
    with pytest.raises(DataError, match=r"two tables for test: test\.csv and testing\.csv"):
        open_table(tmp_path, "csv")


def test_absolute_paths(tmp_path: Path) -> None:
    image = tmp_path / "elsewhere" / "1.jpg"
    image.parent.mkdir()
    image.touch()
    (tmp_path / "t.jsonl").write_text(json.dumps({"image": str(image), "label": "a"}))
    assert open_table(tmp_path / "t.jsonl", "jsonl").splits["train"].name(0) == str(image)


def test_some_missing_images_are_unreadable_and_no_image_at_all_is_an_error(tmp_path: Path) -> None:
    rows = "".join(f"missing{number}.jpg,a\n" for number in range(99))
    source = open_table(write(tmp_path, "t.csv", f"image,label\n{rows}1.jpg,b\n"), "csv").splits["train"]
    with pytest.raises(UnreadableImage, match=r"missing7\.jpg: no such file"):
        source.sample(7)
    rows += "missing99.jpg,a\n"
    with pytest.raises(DataError, match=r"none of its first 100 images exists, such as .*missing0\.jpg"):
        open_table(write(tmp_path, "t.csv", f"image,label\n{rows}1.jpg,b\n"), "csv")


@pytest.mark.parametrize(
    ("word", "text", "message"),
    [
        ("csv", "", "has no rows"),
        ("csv", "image,label\n", "has no rows"),
        ("csv", "image,label\n1.jpg,a\n2.jpg\n", "line 3: 1 cells under 2 columns"),
        ("csv", "image,label\n1.jpg,a\n2.jpg,b,c\n", "line 3: 3 cells under 2 columns"),
        ("csv", 'image,label\n1.jpg,"a\n2.jpg,b\n', "line 3: unexpected end of data"),
        ("csv", "image,label\n1.jpg," + "x" * 200_000 + "\n", "line 2: field larger than field limit"),
        ("csv", "image,label\n1.jpg,a\n2.jpg, \n", "line 3: the label is missing"),
        ("csv", "image,label\n1.jpg,a\n ,b\n", "line 3: the path of the image is missing"),
        ("csv", "image,label,split\n1.jpg,a,test\n", "has test but no train"),
        ("jsonl", '{"image": "1.jpg", "label": "a"}\n{"image": \n', "line 2: this is not JSON"),
        ("jsonl", "[" * 100_000, "line 1: this is not JSON"),
        ("jsonl", '["1.jpg", "a"]\n', "line 1: this is not a JSON object"),
        ("jsonl", '{"image": 5, "label": "a"}\n', "line 1: the path of the image is missing"),
        ("jsonl", '{"image": "1.jpg", "label": {"a": 1}}\n', "line 1: a label must be text, a number"),
        ("jsonl", '{"image": "1.jpg", "label": "a"}\n{"image": "2.jpg"}\n', "line 2: the label is missing"),
    ],
)
def test_errors_name_the_line(tmp_path: Path, word: str, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_table(write(tmp_path, f"t.{word}", text), word)


def test_text_that_is_not_utf_8_and_files_that_are_not_there(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes("image,label\n1.jpg,café\n".encode("latin-1"))
    with pytest.raises(DataError, match="is not UTF-8 text"):
        open_table(tmp_path / "t.csv", "csv")
    with pytest.raises(DataError, match="no such file"):
        open_table(tmp_path / "u.csv", "csv")


def test_recognises_by_ending(tmp_path: Path) -> None:
    assert recognises(Path("a/T.CSV"), "csv")
    assert not recognises(Path("a/t.tsv"), "csv")
    assert not recognises(tmp_path, "csv")


names = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=8).map(str.strip).filter(bool)


@settings(deadline=None, max_examples=60)
@given(labels=st.lists(names.filter(lambda name: not set(name) & set("|;")), min_size=1, max_size=6))
def test_any_label_survives_every_kind_of_table(labels: list[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("tables")
    rows = [(f"{number}.jpg", label) for number, label in enumerate(labels)]
    (folder / "0.jpg").touch()
    for word, mark in (("csv", ","), ("tsv", "\t")):
        with (folder / f"t.{word}").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file, delimiter=mark).writerows([("image", "label"), *rows])
        assert listing(open_table(folder / f"t.{word}", word)) == rows
    lines = "\n".join(json.dumps({"image": image, "label": label}) for image, label in rows)
    (folder / "t.jsonl").write_text(lines)
    assert listing(open_table(folder / "t.jsonl", "jsonl")) == rows


pieces = st.sampled_from(
    [b"image", b"label", b"split", b"train", b",", b"\t", b"\n", b"\r", b'"', b"|", b"1.jpg", b"\0", b"\xff",
     b"{", b"}", b"[", b":", b'{"image": "1.jpg", "label": ', b"image,label\n1.jpg,a\n", b"1e999", b"\\ud800",
     b"\xef\xbb\xbf", b"../" * 3000]
)  # fmt: skip


@settings(deadline=None, max_examples=200)
@given(
    content=st.one_of(st.binary(max_size=200), st.lists(pieces, max_size=30).map(b"".join)),
    word=st.sampled_from(["csv", "tsv", "jsonl"]),
)
def test_garbage_gives_a_data_set_or_a_sentence(
    content: bytes, word: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.getbasetemp() / "garbage"
    folder.mkdir(exist_ok=True)
    (folder / "1.jpg").touch()
    (folder / f"t.{word}").write_bytes(content)
    try:
        dataset = open_table(folder / f"t.{word}", word)
    except UserError:
        return
    for source in dataset.splits.values():
        for index in range(len(source)):
            with pytest.raises(UnreadableImage):  # no image is there, or it is empty
                source.sample(index)
