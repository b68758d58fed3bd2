"""Special tokens, cutting and alignment against Transformers and by brute force."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Regex, models, normalizers, pre_tokenizers
from tokenizers import Tokenizer as Inner

from vitrail.data.text import characters
from vitrail.data.text.inputs import Frame, first_pieces, frame, joined
from vitrail.data.text.tokenizer import Tokenizer
from vitrail.errors import DataError, SettingError

SPECIAL = {
    "bert": ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"),
    "roberta": ("<s>", "<pad>", "</s>", "<unk>", "<mask>"),
    "gpt": ("<|endoftext|>",),
    "plain": (),
}
FRAME = Frame((1,), (2,), (2,))


def tokenizer(kind: str) -> Tokenizer:
    return characters.learn(["ab "], 50, SPECIAL[kind])


def spelled(kind: str, first: str, second: str | None, length: int = 50) -> tuple[str, list[int]]:
    """The input as its tokenizer spells it, and the segments."""
    of = tokenizer(kind)
    ids = [of.encode_many([text])[0] for text in (first, second or "a")]
    found = joined(frame(of), ids[0], None if second is None else ids[1], length)
    return "".join(map(of.token, found.ids.tolist())), found.segments.tolist()


def test_special_tokens_of_one_text() -> None:
    assert spelled("bert", "ab", None) == ("[CLS]ab[SEP]", [0, 0, 0, 0])
    assert spelled("roberta", "ab", None)[0] == "<s>ab</s>"
    assert spelled("gpt", "ab", None)[0] == "ab<|endoftext|>"
    assert spelled("plain", "ab", None)[0] == "ab"


def test_special_tokens_of_two_texts() -> None:
    assert spelled("bert", "ab", "b") == ("[CLS]ab[SEP]b[SEP]", [0, 0, 0, 0, 1, 1])
    assert spelled("roberta", "ab", "b") == ("<s>ab</s></s>b</s>", [0] * 7)
    assert spelled("gpt", "ab", "b")[0] == "ab<|endoftext|>b<|endoftext|>"
    with pytest.raises(SettingError, match="no token to stand between two texts"):
        spelled("plain", "ab", "b")


def test_one_text_is_cut_at_its_end() -> None:
    found = joined(FRAME, np.arange(10, 20, dtype=np.int32), None, 6)
    assert found.ids.tolist() == [1, 10, 11, 12, 13, 2]
    assert (found.starts, found.lost) == ((1,), 6)


@given(st.integers(1, 12), st.integers(1, 12), st.integers(5, 30))
def test_of_two_texts_the_longer_one_is_cut(a: int, b: int, length: int) -> None:
    first, second = np.arange(100, 100 + a, dtype=np.int32), np.arange(200, 200 + b, dtype=np.int32)
    found = joined(FRAME, first, second, length)
    while a + b > length - 3:  # token by token, the second one where both are as long
        a, b = (a - 1, b) if a > b else (a, b - 1)
    assert found.ids.tolist() == [1, *first[:a], 2, *second[:b], 2]
    assert found.segments.tolist() == [0] * (a + 2) + [1] * (b + 1)
    assert found.lost == len(first) + len(second) - a - b
    assert found.ids[found.starts[1] : -1].tolist() == second[:b].tolist()


def test_a_length_without_room() -> None:
    with pytest.raises(SettingError, match="leave no room"):
        joined(FRAME, np.arange(3, dtype=np.int32), None, 2)
    with pytest.raises(SettingError, match="leave no room"):
        joined(FRAME, np.arange(3, dtype=np.int32), np.arange(3, dtype=np.int32), 4)


def pieces() -> Tokenizer:
    """Tokens of at most two letters, which leave out spaces; ``x`` is nothing, and accents are taken away."""
    letters = "abcdefgh"
    vocabulary = {"[UNK]": 0, **{a: n + 1 for n, a in enumerate(letters)}}
    vocabulary |= {f"{a}{b}": len(vocabulary) + 8 * n + m for n, a in enumerate(letters) for m, b in enumerate(letters)}
    inner = Inner(
        models.WordPiece(vocabulary, unk_token="[UNK]", continuing_subword_prefix="", max_input_chars_per_word=99)
    )
    inner.normalizer = normalizers.Sequence(
        [normalizers.NFD(), normalizers.StripAccents(), normalizers.Replace("x", "")]
    )
    inner.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split(Regex("[gh]"), behavior="isolated")]
    )
    return Tokenizer(inner)


@given(st.lists(st.text("abcdeghxé", min_size=1, max_size=7), min_size=1, max_size=8))
def test_a_word_begins_at_its_first_piece(words: list[str]) -> None:
    of = pieces()
    text = " ".join(words)
    try:
        ((ids, spans),) = of.encode_with_spans([text])
    except DataError:
        assert not set(text) - set("x ")
        return
    found = first_pieces(tuple(words), spans)
    wanted, number = [], 0
    for word in words:
        one = len(of.inner.encode(word).ids)
        wanted.append(number if one else -1)
        number += one
    assert number == len(ids)
    assert found.tolist() == wanted


def test_words_whose_pieces_were_cut_have_none() -> None:
    spans = np.array([[0, 2], [2, 3], [4, 5]])
    assert first_pieces(("abc", "d", "e"), spans).tolist() == [0, 2, -1]
    assert first_pieces(("abc", "d"), np.empty((0, 2), np.int64)).tolist() == [-1, -1]


def test_byte_pairs_carry_their_space() -> None:
    spans = np.array([[0, 1], [1, 3], [3, 5]])  # "a", " b", "cd" of "a bcd"
    assert first_pieces(("a", "bcd"), spans).tolist() == [0, 1]
