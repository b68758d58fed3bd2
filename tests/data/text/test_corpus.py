"""Texts as a person has them, and what is wrong with some."""

import json

import pytest

from vitrail.data.text.corpus import open_corpus
from vitrail.errors import DataError

LETTERS = "abcdefghij" * 100


def test_one_document_is_cut_by_place_and_nothing_is_lost(tmp_path):
    (tmp_path / "book.txt").write_text(LETTERS)
    corpus = open_corpus(tmp_path / "book.txt")
    (train,), (validation,), (test,) = (corpus.splits[split] for split in ("train", "validation", "test"))
    assert train + validation + test == LETTERS
    assert (len(train), len(validation), len(test)) == (900, 50, 50)
    assert "by place: 90% train, 5% validation, 5% test" in corpus.notes[0]
    assert corpus.characters == 1000


def test_many_documents_are_parted_by_chance_each_once(tmp_path):
    texts = [f"text {number}" for number in range(60)]
    (tmp_path / "texts.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts))
    corpus, same, other = (open_corpus(tmp_path / "texts.jsonl", seed=seed) for seed in (0, 0, 1))
    assert sorted(text for of_split in corpus.splits.values() for text in of_split) == sorted(texts)
    assert {split: len(of) for split, of in corpus.splits.items()} == {"train": 54, "validation": 3, "test": 3}
    assert corpus.splits == same.splits != other.splits


def test_files_that_are_named_for_a_split_are_that_split(tmp_path):
    for name in ("train", "valid", "test"):
        (tmp_path / f"{name}.txt").write_text(f"the {name} text")
    assert open_corpus(tmp_path).splits == {
        "train": ("the train text",),
        "validation": ("the valid text",),
        "test": ("the test text",),
    }


def test_a_table_is_a_document_a_row(tmp_path):
    (tmp_path / "a.csv").write_text('sentence,label\n"one, two",x\nthree,y\n')
    (tmp_path / "b.tsv").write_text("body\tid\nfour\t1\n")
    given = open_corpus(tmp_path, as_given=True).splits["train"]
    assert given == ("one, two", "three", "four")


def test_the_column_that_is_named_is_taken(tmp_path):
    (tmp_path / "a.csv").write_text("text,notes\nleft,right\n")
    assert open_corpus(tmp_path / "a.csv", text_column="notes", as_given=True).splits["train"] == ("right",)
    with pytest.raises(DataError, match=r"no column title; it has text, notes: name one with --text-column"):
        open_corpus(tmp_path / "a.csv", text_column="title")


def test_windows_line_ends_and_a_byte_order_mark_are_no_text(tmp_path):
    (tmp_path / "a.txt").write_bytes("\ufeffone\r\ntwo".encode())
    assert open_corpus(tmp_path / "a.txt", as_given=True).splits["train"] == ("one\ntwo",)


def test_what_is_not_utf8_is_named_with_the_byte(tmp_path):
    (tmp_path / "a.txt").write_bytes("naïve".encode("latin1"))
    with pytest.raises(DataError, match=r"a\.txt is not UTF-8: byte 2 cannot be read; save it as UTF-8"):
        open_corpus(tmp_path / "a.txt")


@pytest.mark.parametrize("content", ["", "  \n\n"])
def test_an_empty_corpus_is_refused(tmp_path, content):
    (tmp_path / "a.txt").write_text(content)
    with pytest.raises(DataError, match="holds no text"):
        open_corpus(tmp_path / "a.txt")


def test_what_is_not_there_is_refused(tmp_path):
    with pytest.raises(DataError, match="there is no"):
        open_corpus(tmp_path / "nothing.txt")
    with pytest.raises(DataError, match="has no files of text"):
        open_corpus(tmp_path)


def test_parts_without_train_are_refused(tmp_path):
    for name in ("valid", "test"):
        (tmp_path / f"{name}.txt").write_text("text")
    with pytest.raises(DataError, match="has test and validation but no train part"):
        open_corpus(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.jsonl", '{"text": "one"}\n{"text": ', r"line 2 is not JSON"),
        ("a.jsonl", "[1, 2]\n", r"line 1 is not an object"),
        ("a.csv", 'text\n"one" two"\n', r"line 2 cannot be read as a table"),
    ],
)
def test_damaged_tables_are_named_with_the_line(tmp_path, name, content, words):
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=words):
        open_corpus(tmp_path / name)
