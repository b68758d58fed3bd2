"""The simplest tokenizer, and what all of them promise."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitrail.data.text.characters import learn
from vitrail.data.text.tokenizer import Tokenizer
from vitrail.data.text.tokenizers import find_tokenizer, open_tokenizer
from vitrail.errors import CheckpointError, DataError, UnknownName

TEXT = "Dûn na nGall —\tn'est pas\nça ☃ 𝒳"
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


@given(st.text(alphabet=sorted(set(TEXT)), max_size=40))
def test_every_text_comes_back_character_by_character(text):
    tokenizer = learn([TEXT], 1000, ())
    ids = tokenizer.encode(text)
    assert [tokenizer.token(index) for index in ids] == list(text)
    assert tokenizer.decode(ids) == text


def test_ids_are_the_special_tokens_then_the_characters_sorted():
    tokenizer = learn(["cab", "d"], 100, SPECIAL)
    assert len(tokenizer) == 9
    assert tokenizer.encode("abcd") == [5, 6, 7, 8]
    assert (tokenizer.pad, tokenizer.unknown, tokenizer.first, tokenizer.separator, tokenizer.mask) == (0, 1, 2, 3, 4)
    assert tokenizer.special == {0, 1, 2, 3, 4}
    assert tokenizer.encode("az") == [5, 1]


def test_special_tokens_are_no_text_unless_asked_for():
    tokenizer = learn(["ab"], 100, SPECIAL)
    assert tokenizer.decode([2, 5, 6, 3]) == "ab"
    assert tokenizer.decode([2, 5, 3], keep_special=True) == "[CLS]a[SEP]"


def test_a_character_that_was_not_learned_is_named():
    with pytest.raises(DataError, match="does not know the character 'é'"):
        learn(["abc"], 100, ()).encode("cabé")


def test_too_many_characters_are_refused():
    with pytest.raises(DataError, match="3 different characters, more than the vocabulary of 2 allows"):
        learn(["abc"], 2, ())


def test_documents_in_a_row_have_the_end_between_them():
    tokenizer = learn(["ab"], 100, ("<|endoftext|>",))
    assert tokenizer.joined(tokenizer.encode_many(["ab", "b"])).tolist() == [1, 2, 0, 2]
    plain = learn(["ab"], 100, ())
    joined = plain.joined(plain.encode_many(["ab", "b"]))
    assert joined.tolist() == [0, 1, 1]
    assert joined.dtype == np.int32
    assert plain.joined([]).tolist() == []


def test_what_is_written_is_the_same_tokenizer(tmp_path):
    tokenizer = learn([TEXT], 1000, SPECIAL)
    (tmp_path / "tokenizer.json").write_text(tokenizer.to_json(), encoding="utf-8")
    for again in (
        Tokenizer.from_json(tokenizer.to_json()),
        open_tokenizer(tmp_path),
        open_tokenizer(tmp_path / "tokenizer.json"),
        find_tokenizer(str(tmp_path), [], 0, ()),
    ):
        assert again.encode(TEXT) == tokenizer.encode(TEXT)
        assert again.special == tokenizer.special
        assert again.decode(again.encode(TEXT)) == TEXT


def test_what_is_no_tokenizer_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"tokenizer\.json is damaged"):
        Tokenizer.from_json('{"version": 1')
    with pytest.raises(UnknownName, match="no tokenizer called 'charcters'; did you mean characters"):
        find_tokenizer("charcters", ["a"], 10, ())
