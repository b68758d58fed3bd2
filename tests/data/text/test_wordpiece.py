"""Word pieces: BERT's files against Transformers' tokenizer, and pieces learned from text."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import BertTokenizer

from vitrail.data.text.bytepair import learn as learn_bytes
from vitrail.data.text.characters import learn as learn_characters
from vitrail.data.text.tokenizer import Tokenizer
from vitrail.data.text.tokenizers import find_tokenizer, open_tokenizer
from vitrail.data.text.wordpiece import continues_word, learn
from vitrail.errors import CheckpointError, DataError, SettingError

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
WORDS = [*SPECIAL, "un", "##aff", "##able", "hello", "Hello", "é", "e", "##e", "!", "中", "文", "caf", "##é"]
TEXT = "Héllo HELLO hello!café cafe\u0301 中文 unaffable\tun\u0000aff\u00a0[MASK]able! 😀"
REAL = "VITRAIL_DATA" not in os.environ


def vocabulary(folder, words=WORDS, **stated):
    (folder / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    if stated:
        (folder / "tokenizer_config.json").write_text(json.dumps(stated))
    return folder


@pytest.mark.parametrize(
    "stated",
    [
        {"do_lower_case": True},
        {"do_lower_case": False},
        {"do_lower_case": True, "strip_accents": False},
        {"do_lower_case": False, "tokenize_chinese_chars": False},
    ],
)
def test_a_vocabulary_is_opened_as_transformers_opens_it(stated, tmp_path):
    ours = open_tokenizer(vocabulary(tmp_path, **stated))
    theirs = BertTokenizer({word: number for number, word in enumerate(WORDS)}, **stated)
    assert ours.encode(TEXT) == theirs(TEXT, add_special_tokens=False)["input_ids"]


def test_upper_case_counts_where_the_pieces_have_it(tmp_path):
    words = [word for word in WORDS if word != "Hello"]
    (tmp_path / "cased").mkdir()
    uncased, cased = open_tokenizer(vocabulary(tmp_path, words)), open_tokenizer(vocabulary(tmp_path / "cased"))
    assert [uncased.token(number) for number in uncased.encode("Hello HELLO")] == ["hello", "hello"]
    assert [cased.token(number) for number in cased.encode("Hello HELLO")] == ["Hello", "[UNK]"]


def test_special_tokens(tmp_path):
    tokenizer = open_tokenizer(vocabulary(tmp_path) / "vocab.txt")
    assert (tokenizer.pad, tokenizer.unknown, tokenizer.first, tokenizer.separator, tokenizer.mask) == (0, 1, 2, 3, 4)
    assert tokenizer.special == {0, 1, 2, 3, 4}
    assert tokenizer.decode([2, 5, 6, 7, 13, 3]) == "unaffable!"


@pytest.mark.skipif(REAL, reason="set VITRAIL_DATA to the folder with BERT's vocabulary and texts")
def test_googles_vocabulary_on_real_text():
    data = Path(os.environ["VITRAIL_DATA"])
    ours = open_tokenizer(data / "tokenizers" / "bert")
    theirs = BertTokenizer(str(data / "tokenizers" / "bert" / "bert_base_uncased_vocab.txt"))
    assert len(ours) == len(theirs) == 30_522
    for file in ("wikitext-2/valid.txt", "ag_news_test/test.csv"):
        lines = [line for line in (data / "text" / file).read_text(encoding="utf-8").split("\n") if line.strip()][:500]
        expected = theirs(lines, add_special_tokens=False)["input_ids"]
        assert [row.tolist() for row in ours.encode_many(lines)] == expected


def test_learned_pieces_spell_every_word_of_the_text():
    texts = ["The cat sat on the mat.", "The cats sit: cattle scatter!"]
    tokenizer = learn(texts, 60, SPECIAL)
    assert len(tokenizer) <= 60
    assert [tokenizer.token(number) for number in range(5)] == list(SPECIAL)
    for text in texts:
        ids = tokenizer.encode(text)
        assert tokenizer.unknown not in ids
        spelled = "".join(tokenizer.token(number).removeprefix("##") for number in ids)
        assert spelled == text.lower().replace(" ", "")
    assert "cat" in tokenizer.inner.get_vocab()
    again = Tokenizer.from_json(tokenizer.to_json())
    assert again.encode(texts[1]) == tokenizer.encode(texts[1])
    assert find_tokenizer("words", texts, 60, SPECIAL).encode(texts[0]) == tokenizer.encode(texts[0])


def test_unknown_characters_are_one_token():
    tokenizer = learn(["a cat"], 40, SPECIAL)
    assert tokenizer.encode("a zoo") == [*tokenizer.encode("a"), tokenizer.unknown]


def test_what_cannot_be_learned_or_opened(tmp_path):
    with pytest.raises(DataError, match="no words to learn"):
        learn([" \n "], 100, SPECIAL)
    with pytest.raises(SettingError, match=r"need a --vocabulary of at least \d+, for every character; not 6"):
        learn(["the quick brown fox"], 6, SPECIAL)
    with pytest.raises(CheckpointError, match=r"vocab\.txt has no \[PAD\], \[MASK\], one a line"):
        open_tokenizer(vocabulary(tmp_path, ["[UNK]", "[CLS]", "[SEP]", "cat"]))
    (tmp_path / "vocab.txt").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(CheckpointError, match="cannot be read"):
        open_tokenizer(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"tokenizer_config\.json cannot be read"):
        open_tokenizer(vocabulary(tmp_path))


def test_where_words_begin(tmp_path):
    pieces = open_tokenizer(vocabulary(tmp_path, [*WORDS, "##"]))
    continuing = [pieces.token(number) for number, true in enumerate(continues_word(pieces)) if true]
    assert continuing == ["##aff", "##able", "##e", "##é"]
    pairs = learn_bytes(["low lower lowest low lower"] * 3, 280, ("<pad>", "<s>", "</s>", "<mask>"))
    continues = continues_word(pairs)
    ids = pairs.encode("low lowest")
    words = [not continues[number] for number in ids]
    starts = [pairs.token(number).startswith("Ġ") for number in ids]
    assert words == starts
    assert not any(continues[number] for number in pairs.special)
    with pytest.raises(SettingError, match="does not say where words begin"):
        continues_word(learn_characters(["abc"], 10, ()))


def test_another_process_learns_the_same_pieces():
    texts = [f"the {'x' * (number % 5)}{number} pieces of words that are as frequent as others" for number in range(50)]
    program = (
        "import sys, json; from vitrail.data.text.wordpiece import learn; "
        "sys.stdout.write(learn(json.loads(sys.argv[1]), 120, json.loads(sys.argv[2])).to_json())"
    )
    learned = {
        subprocess.run(
            [sys.executable, "-c", program, json.dumps(texts), json.dumps(SPECIAL)], check=True, capture_output=True
        ).stdout
        for _ in range(3)
    }
    assert len(learned) == 1
