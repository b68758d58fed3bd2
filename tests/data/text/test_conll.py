"""Words with tags from CoNLL's columns and from JSON Lines."""

from __future__ import annotations

from pathlib import Path

import pytest

from vitrail.data.text.conll import open_tagged
from vitrail.errors import DataError

# As CoNLL-2003's files: word, part of speech, chunk, entity.
CONLL = """-DOCSTART- -X- -X- O

EU NNP B-NP B-ORG
rejects VBZ B-VP O
German JJ B-NP B-MISC
call NN I-NP O

Peter NNP B-NP B-PER
Blackburn NNP I-NP I-PER
"""


def test_the_last_column_is_the_tag(tmp_path: Path) -> None:
    (tmp_path / "a.conll").write_text(CONLL)
    (one, two) = open_tagged(tmp_path / "a.conll", as_given=True).splits["train"]
    assert one.words == ("EU", "rejects", "German", "call")
    assert one.tags == ("B-ORG", "O", "B-MISC", "O")
    assert (two.words, two.tags) == (("Peter", "Blackburn"), ("B-PER", "I-PER"))
    assert (one.name, two.name) == ("a.conll:3", "a.conll:8")


def test_tabs_part_columns_and_a_word_may_hold_spaces(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text("New York\tB-LOC\r\nis\tO\r\n\r\n\r\n")
    (one,) = open_tagged(tmp_path / "a.tsv", as_given=True).splits["train"]
    assert (one.words, one.tags) == (("New York", "is"), ("B-LOC", "O"))


def test_json_lines(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"tokens": ["EU", "call"], "ner_tags": [3, 0]}\n')
    (one,) = open_tagged(tmp_path / "a.jsonl", as_given=True).splits["train"]
    assert (one.words, one.tags) == (("EU", "call"), ("3", "0"))


def test_splits_and_tags(tmp_path: Path) -> None:
    for name in ("train", "testa", "test"):
        (tmp_path / f"{name}.txt").write_text(CONLL)
    (tmp_path / "valid.txt").write_text("EU B-ORG\n")
    data = open_tagged(tmp_path)
    assert data.classes == ("B-MISC", "B-ORG", "B-PER", "I-PER", "O")
    assert {split: len(of) for split, of in data.splits.items()} == {"train": 4, "validation": 1, "test": 2}


def test_one_file_is_parted_with_as_many_plain_sentences_in_each(tmp_path: Path) -> None:
    sentences = [f"word{n} O\nthing B-X\n" if n % 2 else f"word{n} O\nno O\n" for n in range(40)]
    (tmp_path / "a.bio").write_text("\n".join(sentences))
    data = open_tagged(tmp_path / "a.bio")
    for of_split, wanted in zip(data.splits.values(), (16, 2, 2), strict=True):
        assert sum("B-X" in one.tags for one in of_split) == wanted


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.conll", "EU B-ORG\nrejects\n", "line 2 is not a word with its tag"),
        ("b.conll", "", "holds no words"),
        ("c.conll", "EU O\ncall O\n", "the class 'O' only"),
        ("d.jsonl", '{"tokens": ["a", "b"], "tags": ["O"]}', "line 1: 2 tokens have 1 tags"),
        ("e.jsonl", '{"tokens": "a b", "tags": ["O"]}', "line 1 has no list called tokens"),
        ("f.jsonl", '{"tokens": ["a"]}', "line 1 has no list called tags"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=message):
        open_tagged(tmp_path / name)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no"):
        open_tagged(tmp_path / "none.conll")
