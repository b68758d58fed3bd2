"""Texts with classes from every kind of file, and what is said of files that cannot be used."""

from __future__ import annotations

import json
from collections import Counter
from itertools import combinations
from pathlib import Path

import pytest

from vitrail.data.text.labelled import Columns, open_labelled
from vitrail.errors import DataError


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def opened(path: Path, *columns: str | None, pairs: bool = False, **options: object):
    return open_labelled(path, Columns(*columns), pairs=pairs, **options)


def content(data) -> list[tuple[str, str]]:
    """What there is in all splits, in no order."""
    return sorted((one.text, one.label) for of in data.splits.values() for one in of)


ROWS = [(f"text number {number}", "good" if number % 2 else "bad") for number in range(20)]


def test_a_table_with_a_header(tmp_path: Path) -> None:
    table = write(tmp_path / "a.csv", "text,label\n" + "".join(f'"{text}",{label}\n' for text, label in ROWS))
    data = opened(table)
    assert data.classes == ("bad", "good")
    assert content(data) == sorted(ROWS)
    assert {split: len(of) for split, of in data.splits.items()} == {"train": 16, "validation": 2, "test": 2}
    assert "80% train, 10% validation, 10% test" in data.notes[0]
    assert all(Counter(one.label for one in of)["good"] == len(of) / 2 for of in data.splits.values())


@pytest.mark.parametrize("ending", ["tsv", "jsonl"])
def test_other_tables(tmp_path: Path, ending: str) -> None:
    if ending == "tsv":
        lines = ["sentence\tcategory", *(f"{text}\t{label}" for text, label in ROWS)]
    else:
        lines = [json.dumps({"sentence": text, "category": label}) for text, label in ROWS]
    assert content(opened(write(tmp_path / f"a.{ending}", "\n".join(lines)))) == sorted(ROWS)


def test_a_cell_may_hold_lines_commas_and_quotation_marks(tmp_path: Path) -> None:
    table = write(
        tmp_path / "a.csv",
        'label,text\nx,"one,\ntwo ""three""\u2028four"\n' + "".join(f"{'xy'[n % 2]},{n}\n" for n in range(20)),
    )
    assert ('one,\ntwo "three"\u2028four', "x") in content(opened(table))


def test_columns_of_a_table_without_a_header_are_counted(tmp_path: Path) -> None:
    table = write(tmp_path / "a.csv", "".join(f'"{1 + number % 2}","title {number}","body"\n' for number in range(20)))
    data = opened(table, "2,3", None, "1")
    assert data.classes == ("1", "2")
    assert ("title 0 body", "1") in content(data)
    write(tmp_path / "classes.txt", "World\nSports\n")
    assert opened(table, "2", None, "1").classes == ("Sports", "World")
    with pytest.raises(DataError, match="--label-column"):
        opened(table, "2")


def test_columns_by_their_names(tmp_path: Path) -> None:
    lines = "".join(f"t{number},b{number},{number % 3}\n" for number in range(30))
    table = write(tmp_path / "a.csv", "title,body text,stars\n" + lines)
    assert ("t4 b4", "1") in content(opened(table, "title,body text", None, "stars"))
    with pytest.raises(DataError, match="--text-column"):
        opened(table, "titel", None, "stars")
    with pytest.raises(DataError, match="has no column 'label'"):
        opened(table, "title")


def test_numbers_are_classes_in_the_order_of_numbers(tmp_path: Path) -> None:
    table = write(tmp_path / "a.csv", "text,label\n" + "".join(f"t{n},{n % 11}\n" for n in range(44)))
    assert opened(table).classes == tuple(str(number) for number in range(11))


def test_pairs(tmp_path: Path) -> None:
    rows = [{"premise": f"p{n}", "hypothesis": f"h{n}", "label": n % 2} for n in range(20)]
    table = write(tmp_path / "a.jsonl", "\n".join(map(json.dumps, rows)))
    data = opened(table, pairs=True)
    found = {(one.text, one.second, one.label) for of in data.splits.values() for one in of}
    assert found == {(f"p{n}", f"h{n}", str(n % 2)) for n in range(20)}
    with pytest.raises(DataError, match="--pair-column"):
        opened(write(tmp_path / "b.csv", "text,label\na,b\nc,d\n"), pairs=True)


def test_tables_that_are_parted_by_their_names(tmp_path: Path) -> None:
    for name, count in (("train", 6), ("dev", 4), ("test", 2)):
        write(tmp_path / f"{name}.csv", "text,label\n" + "".join(f"{name}{n},{'ab'[n % 2]}\n" for n in range(count)))
    data = opened(tmp_path)
    assert {split: len(of) for split, of in data.splits.items()} == {"train": 6, "validation": 4, "test": 2}
    assert data.notes == ()


def test_a_column_parts_a_table(tmp_path: Path) -> None:
    lines = [f"t{n},{'ab'[n % 2]},{('train', 'val', 'test')[n % 3]}\n" for n in range(12)]
    data = opened(write(tmp_path / "a.csv", "text,label,split\n" + "".join(lines)))
    assert {split: len(of) for split, of in data.splits.items()} == {"train": 4, "validation": 4, "test": 4}
    with pytest.raises(DataError, match=r"line 3: the split 'tree'"):
        opened(write(tmp_path / "a.csv", "text,label,split\na,b,train\nc,d,tree\n"))


def test_only_train_is_parted_where_test_is_given(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", "text,label\n" + "".join(f"t{n},{'ab'[n % 2]}\n" for n in range(40)))
    write(tmp_path / "test.csv", "text,label\nx,a\ny,b\n")
    data = opened(tmp_path)
    assert {split: len(of) for split, of in data.splits.items()} == {"train": 36, "validation": 4, "test": 2}
    assert "90% train, 10% validation" in data.notes[0]


def test_equal_texts_stay_together_and_leaks_are_told(tmp_path: Path) -> None:
    twice = [f"text {n // 2},{'ab'[n // 2 % 2]}\n" for n in range(80)]
    data = opened(write(tmp_path / "a.csv", "text,label\n" + "".join(twice)))
    texts = [{one.text for one in of} for of in data.splits.values()]
    assert not any(one & other for one, other in combinations(texts, 2))
    for name in ("train", "valid", "test"):
        write(tmp_path / "parts" / f"{name}.csv", f"text,label\nsame,a\n{name},b\n")
    assert opened(tmp_path / "parts").notes[0] == "Leak: 1 of validation are also in train, such as valid.csv:2."


def test_folders_of_class_folders(tmp_path: Path) -> None:
    for part, label, number in [(p, c, n) for p in ("train", "test") for c in ("neg", "pos") for n in range(10)]:
        write(tmp_path / part / label / f"{number}.txt", f"{part} {label} {number}\nsecond line\n")
    data = opened(tmp_path)
    assert data.classes == ("neg", "pos")
    assert {split: len(of) for split, of in data.splits.items()} == {"train": 18, "validation": 2, "test": 20}
    assert ("test pos 3\nsecond line", "pos") in content(data)
    assert opened(tmp_path / "train").classes == ("neg", "pos")


@pytest.mark.parametrize("names", [("movies.pos", "movies.neg"), ("pos.txt", "neg.txt")])
def test_a_file_for_each_class(tmp_path: Path, names: tuple[str, str]) -> None:
    for name in names:
        write(tmp_path / name, "".join(f"{name} {number} \r\n\n" for number in range(10)))
    write(tmp_path / "README.txt", "about these files")
    if names[0].endswith(".txt"):
        write(tmp_path / "notes.pdf", "no text")
    data = opened(tmp_path)
    assert data.classes == ("neg", "pos")
    assert content(data) == sorted(
        (f"{name} {n}", "pos" if "pos" in name else "neg") for name in names for n in range(10)
    )


def test_data_to_measure_on_stay_as_they_are(tmp_path: Path) -> None:
    data = opened(write(tmp_path / "a.csv", "text,label\na,only\nb,only\n"), as_given=True)
    assert {split: len(of) for split, of in data.splits.items()} == {"train": 2}


def test_the_seed_decides_what_goes_where(tmp_path: Path) -> None:
    table = write(tmp_path / "a.csv", "text,label\n" + "".join(f'"{text}",{label}\n' for text, label in ROWS))
    assert opened(table, seed=1) == opened(table, seed=1)
    assert opened(table, seed=1).splits != opened(table, seed=2).splits
    assert opened(table, seed=1).fingerprint() != opened(table, seed=2).fingerprint()


MISTAKES = {
    "no such": (None, "there is no"),
    "a.txt": ("some text", "says nothing of classes"),
    "empty.csv": ("text,label\n", "has no rows"),
    "short.csv": ("text,label\na\n", "line 2: 1 cells under 2 columns"),
    "blank.csv": ("text,label\na,b\n  ,c\n", "line 3: there is nothing to use in 'text'"),
    "unlabelled.csv": ("text,label\na,\n", "line 2: there is nothing to use in 'label'"),
    "lists.jsonl": ('{"text": ["a"], "label": "b"}\n', "line 1: there is nothing to use in 'text'"),
    "broken.jsonl": ('{"text": \n', "line 1: this is not JSON"),
    "alone.csv": ("text,label\na,x\nb,x\n", "the class 'x' only"),
    "few.csv": ("text,label\na,x\nb,y\n", "too few for train, validation, test"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_named(tmp_path: Path, name: str) -> None:
    text, message = MISTAKES[name]
    if text is not None:
        write(tmp_path / name, text)
    with pytest.raises(DataError, match=message):
        opened(tmp_path / name)


def test_text_that_is_not_utf8(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes("text,label\ncafé,x\n".encode("latin-1"))
    with pytest.raises(DataError, match="not UTF-8"):
        opened(tmp_path / "a.csv")
    (tmp_path / "b").mkdir()
    for name in ("x.txt", "y.txt"):
        (tmp_path / "b" / name).write_bytes("café\n".encode("latin-1"))
    with pytest.raises(DataError, match="not UTF-8"):
        opened(tmp_path / "b")


def test_folders_that_say_no_classes(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no texts of classes"):
        opened(tmp_path / "empty")
    for name in ("train.txt", "test.txt"):
        write(tmp_path / "splits" / name, "a\n")
    with pytest.raises(DataError, match="named for splits"):
        opened(tmp_path / "splits")
    with pytest.raises(DataError, match="pairs of texts come in one"):
        opened(tmp_path / "splits", pairs=True)


def test_a_class_that_only_test_has(tmp_path: Path) -> None:
    for name, labels in (("train", "ab"), ("valid", "ab"), ("test", "ac")):
        write(tmp_path / f"{name}.csv", "text,label\n" + "".join(f"{name} {label},{label}\n" for label in labels))
    with pytest.raises(DataError, match="the class 'c' occurs in test but not in train"):
        opened(tmp_path)
