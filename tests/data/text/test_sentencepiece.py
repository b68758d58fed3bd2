"""SentencePiece's files: against files of known bytes, and T5's own model on real text."""

import os
import struct
from contextlib import suppress
from pathlib import Path

import pytest

from vitrail.data.text.sentencepiece import fields, learn, opens, read
from vitrail.data.text.tokenizers import find_tokenizer, open_tokenizer
from vitrail.errors import CheckpointError, DataError, SettingError
from vitrail.objectives.span import Span, sentinels

NORMAL, UNKNOWN, CONTROL, USER = 1, 2, 3, 4
PIECES = [
    ("<pad>", 0.0, CONTROL),
    ("</s>", 0.0, CONTROL),
    ("<unk>", 0.0, UNKNOWN),
    ("▁", -2.0, NORMAL),
    *((letter, -4.0, NORMAL) for letter in "abcdefghij"),
    ("▁ab", -3.0, NORMAL),
    ("cd", -5.0, NORMAL),
    ("▁abcd", -9.5, NORMAL),
]


def varint(number):
    groups = []
    while number > 127:
        groups.append(number & 127 | 128)
        number >>= 7
    return bytes([*groups, number])


def field(number, value):
    """One field as the format's description writes it: whole numbers, 32-bit floats, and bytes with their length."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    if isinstance(value, float):
        return varint(number << 3 | 5) + struct.pack("<f", value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def message(pieces=PIECES, kind=1, **normaliser):
    trainer = field(3, kind) + field(4, len(pieces)) + field(10, 0.9995) + field(1, b"corpus.txt")
    spaces = b"".join(field({"add_prefix": 3, "collapse": 4}[name], value) for name, value in normaliser.items())
    parts = [field(1, field(1, text.encode()) + field(2, score) + field(3, kind)) for text, score, kind in pieces]
    return b"".join(parts) + field(2, trainer) + field(3, field(1, b"identity") + spaces)


@pytest.fixture
def file(tmp_path):
    (tmp_path / "spiece.model").write_bytes(message())
    return tmp_path / "spiece.model"


def tokens(tokenizer, text):
    return [tokenizer.token(index) for index in tokenizer.encode(text)]


def test_fields_of_a_message():
    data = field(1, 300) + field(2, b"xyz") + field(3, 1.5) + varint(4 << 3 | 1) + bytes(8)
    assert list(fields(data)) == [(1, 300), (2, b"xyz"), (3, struct.pack("<f", 1.5)), (4, bytes(8))]


def test_what_a_file_says(file):
    model = read(file)
    assert model.pieces == PIECES
    assert (model.kind, model.unknown, model.byte_fallback, model.charsmap) == (1, 2, False, b"")
    assert model.add_prefix
    assert model.collapse


def test_the_likeliest_pieces_are_taken(file):
    """▁ab and cd are likelier than ▁abcd: -3 - 5 > -9.5; and so on for every way to cut."""
    tokenizer = open_tokenizer(file)
    assert tokens(tokenizer, "abcd") == ["▁ab", "cd"]
    assert tokens(tokenizer, "  abc   ab ") == ["▁ab", "c", "▁ab"]
    assert tokens(tokenizer, "bab") == ["▁", "b", "a", "b"]
    assert tokens(tokenizer, "aXd") == ["▁", "a", "<unk>", "d"]
    assert tokenizer.decode(tokenizer.encode("abcd  ab")) == "abcd ab"


def test_sentinels_follow_the_pieces_the_last_of_them_first(file):
    tokenizer = open_tokenizer(file)
    count = len(PIECES)
    assert len(tokenizer) == count + 100
    assert sentinels(tokenizer) == [count + 99 - number for number in range(100)]
    assert (tokenizer.pad, tokenizer.end, tokenizer.unknown) == (0, 1, 2)
    assert {0, 1, 2, count, count + 99} <= tokenizer.special


def test_words_beside_a_sentinel_keep_their_spaces(file):
    """As in the text that spans were taken out of: what stands right behind one has no space of its own."""
    tokenizer = open_tokenizer(file)
    expected = ["▁ab", "<extra_id_0>", "▁ab", "c", "<extra_id_1>", "d"]
    assert tokens(tokenizer, "ab <extra_id_0> abc <extra_id_1>d") == expected
    assert tokenizer.decode(tokenizer.encode("ab <extra_id_0> abc"), keep_special=True) == "ab<extra_id_0> abc"


def test_a_file_with_sentinels_of_its_own_gets_no_more(tmp_path):
    (tmp_path / "x.model").write_bytes(message([*PIECES, ("<extra_id_0>", 0.0, USER)]))
    tokenizer = open_tokenizer(tmp_path)
    assert len(tokenizer) == len(PIECES) + 1
    assert tokens(tokenizer, "ab<extra_id_0>") == ["▁ab", "<extra_id_0>"]


def test_without_a_space_before_the_text(tmp_path):
    (tmp_path / "x.model").write_bytes(message(add_prefix=0, collapse=0))
    tokenizer = open_tokenizer(tmp_path)
    assert tokens(tokenizer, "cd  ab") == ["cd", "▁", "▁ab"]


def test_it_goes_through_json(file):
    tokenizer = open_tokenizer(file)
    again = type(tokenizer).from_json(tokenizer.to_json())
    text = "ab <extra_id_5>. cab  abcd"
    assert again.encode(text) == tokenizer.encode(text)
    assert again.special == tokenizer.special


def test_other_kinds_are_refused(tmp_path):
    (tmp_path / "tokenizer.model").write_bytes(message(kind=2))
    with pytest.raises(CheckpointError, match=r"tokenizer\.model is not of SentencePiece's unigram kind; give a"):
        opens(tmp_path)
    assert opens(tmp_path / "other.txt") is None
    assert opens(tmp_path.parent / "nothing") is None


@pytest.mark.parametrize("end", range(0, len(message()), 7))
def test_a_file_that_is_cut_short_is_named(end, tmp_path):
    (tmp_path / "x.model").write_bytes(message()[:end])
    with pytest.raises(CheckpointError, match=r"x\.model is no model of SentencePiece, or is damaged"):
        opens(tmp_path)


def test_damaged_bytes_never_end_in_another_error(tmp_path):
    whole = message()
    for place in range(len(whole)):
        (tmp_path / "x.model").write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        with suppress(CheckpointError):
            assert opens(tmp_path) is not None


def test_pieces_are_learned_from_text():
    text = "the cat sat on the mat, the dog on the cat. " * 50
    tokenizer = find_tokenizer("pieces", [text], 140, Span.special)
    assert len(tokenizer) <= 140
    assert (tokenizer.pad, tokenizer.end, tokenizer.unknown) == (0, 1, 2)
    assert "▁cat" in tokens(tokenizer, text)
    assert tokenizer.decode(tokenizer.encode("the mat sat")) == "the mat sat"
    assert tokens(tokenizer, "cat <extra_id_7> sat")[1] == "<extra_id_7>"
    assert tokenizer.encode("Z")[-1] == tokenizer.unknown


def test_learning_has_its_limits():
    with pytest.raises(SettingError, match=r"a --vocabulary of at least 107"):
        learn(["abc abc"], 100, Span.special)
    with pytest.raises(DataError):
        learn(["abc abc"] * 9, 50, ("<|endoftext|>",)).encode("日")


DATA = os.environ.get("VITRAIL_DATA")
EXPECTED = {  # what the package `sentencepiece` 0.2.3 makes of these
    "Thank you for inviting me to your party last week.": [1562, 25, 21, 14256, 140, 12, 39, 1088, 336, 471, 5],
    "translate English to German: That is good.": [13959, 1566, 12, 2968, 10, 466, 19, 207, 5],
    "  two  spaces\tand\nlines ": [192, 4856, 11, 2356],
    "ﬁne ½ Ｆｕｌｌ e\u0301 naïve café": [1399, 209, 2, 357, 4043, 3, 154, 3, 29, 9, 2, 162, 11949],
    "Überraschung, où êtes-vous?": [30212, 6, 3, 2355, 3, 6738, 18, 3249, 58],
    "日本語 😀": [3, 2, 3, 2],
    "1,234.5 - 67%": [1914, 2773, 12451, 3, 18, 431, 6170],
}


@pytest.mark.skipif(not DATA, reason="VITRAIL_DATA names no folder with real data")
def test_t5s_own_model():
    """Its pieces, its table of characters, its spaces, and what is unknown."""
    tokenizer = open_tokenizer(Path(DATA or "", "tokenizers", "t5"))
    assert len(tokenizer) == 32_100
    assert tokenizer.inner.token_to_id("<extra_id_0>") == 32_099
    for text, ids in EXPECTED.items():
        assert tokenizer.encode(text) == ids
