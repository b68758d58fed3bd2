"""Byte pairs against a plain program of the algorithm, and against Transformers on real text."""

import json
import os
import shutil
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
import regex
from transformers import AddedToken, GPT2TokenizerFast, RobertaTokenizerFast

from vitrail.data.text.bytepair import learn
from vitrail.data.text.tokenizers import find_tokenizer, open_tokenizer
from vitrail.errors import CheckpointError, SettingError, UnknownName

# Radford et al. 2019: the words that pairs are merged in; of the code that was released with it.
WORDS = regex.compile(r"""'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+""")
TEXTS = ["the cat sat on the mat; the cats' hats", "that's the hat, isn't it?", "10 cats  and\n\n12 mats"] * 3
STRANGE = [
    "naïve café, 北京, Владивосток, हिन्दी",
    "😀👩‍👩‍👧 ﷽ \u202e \ud7ff \U0010ffff",
    "tabs\tand\r\nlines\n\n\n  and   spaces ",
    "don't I'LL we're 3.14159 x=y**2 // ###",
    "\x00\x01\x7f\xa0\xad",
    " ",
    "",
]
DATA = os.environ.get("VITRAIL_DATA")
real = pytest.mark.skipif(not DATA, reason="GPT-2's tokenizer and real text are looked for in $VITRAIL_DATA")


def alphabet():
    """The character that stands for each byte: itself where it can be seen, else one from 256 on, in order."""
    seen = {*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAC + 1), *range(0xAE, 0xFF + 1)}
    unseen = [byte for byte in range(256) if byte not in seen]
    return {byte: chr(byte) if byte in seen else chr(256 + unseen.index(byte)) for byte in range(256)}


BYTES = alphabet()


def words_of(text):
    return [tuple(BYTES[byte] for byte in word.encode()) for word in WORDS.findall(text)]


def merged(word, pair):
    """Every neighbouring pair in a word as one, from left to right."""
    out, place = [], 0
    while place < len(word):
        if word[place : place + 2] == pair:
            out.append(pair[0] + pair[1])
            place += 2
        else:
            out.append(word[place])
            place += 1
    return tuple(out)


def encoded(text, merges):
    """Each word's pairs merged, the earliest learned first."""
    tokens = []
    for word in words_of(text):
        while ranks := [merges.index(pair) for pair in pairwise(word) if pair in merges]:
            word = merged(word, merges[min(ranks)])
        tokens += word
    return tokens


def parts(tokenizer):
    """The vocabulary and the merges, as the package writes them."""
    model = json.loads(tokenizer.to_json())["model"]
    return model["vocab"], [tuple(pair) for pair in model["merges"]]


def test_the_pair_that_is_found_most_often_is_merged_next():
    _, merges = parts(learn(TEXTS, 256 + 20, []))
    counts = Counter(word for text in TEXTS for word in words_of(text))
    for pair in merges:
        pairs = Counter()
        for word, count in counts.items():
            for each in pairwise(word):
                pairs[each] += count
        assert pairs[pair] == max(pairs.values())
        counts = Counter({merged(word, pair): count for word, count in counts.items()})
    assert len(merges) == 20


@pytest.mark.parametrize("text", [*TEXTS[:3], *STRANGE])
def test_words_are_merged_as_the_merges_were_learned(text):
    tokenizer = learn(TEXTS, 300, ["<|endoftext|>"])
    vocabulary, merges = parts(tokenizer)
    assert tokenizer.encode(text) == [vocabulary[token] for token in encoded(text, merges)]


@pytest.mark.parametrize("text", [*TEXTS[:3], *STRANGE])
def test_every_text_comes_back(text):
    tokenizer = learn(TEXTS, 300, [])
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_special_tokens_come_first_and_are_whole():
    tokenizer = learn(TEXTS, 280, ["<pad>", "<|endoftext|>"])
    assert (len(tokenizer), tokenizer.pad, tokenizer.end) == (280, 0, 1)
    assert tokenizer.special == {0, 1}
    assert 1 in tokenizer.encode("a cat<|endoftext|>the")
    assert tokenizer.decode([1]) == ""


def test_the_same_texts_give_the_same_tokenizer_and_it_comes_back():
    one, same = learn(TEXTS, 300, ["<s>"]), find_tokenizer("byte-pairs", TEXTS, 300, ["<s>"])
    assert one.to_json() == same.to_json()
    assert type(one).from_json(one.to_json()).encode(TEXTS[0]) == one.encode(TEXTS[0])


def test_a_vocabulary_without_room_for_all_bytes():
    with pytest.raises(SettingError, match="a --vocabulary of at least 257, for every byte; not 256"):
        learn(TEXTS, 256, ["<s>"])


# ------------------------------------------------------------------------------------------------------------- files


def as_files(folder, names=("vocab.json", "merges.txt"), special=("<|endoftext|>",)):
    folder.mkdir(exist_ok=True)
    vocabulary, merges = parts(learn(TEXTS, 300, special))
    (folder / names[0]).write_text(json.dumps(vocabulary, ensure_ascii=True))
    (folder / names[1]).write_text("\n".join(["#version: 0.2", *map(" ".join, merges), ""]), encoding="utf-8")
    return folder


@pytest.mark.parametrize("names", [("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe")])
def test_files_of_transformers_and_of_openai(names, tmp_path):
    folder, learned = as_files(tmp_path / "files", names), learn(TEXTS, 300, ["<|endoftext|>"])
    for path in (folder, folder / names[0], folder / names[1]):
        opened = open_tokenizer(path)
        assert (len(opened), opened.end, opened.special) == (len(learned), 0, {0})
        for text in (*TEXTS, *STRANGE, "the cat<|endoftext|>the mat"):
            assert opened.encode(text) == learned.encode(text)


def test_robertas_special_tokens(tmp_path):
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    folder = as_files(tmp_path / "files", special=special)
    ours = open_tokenizer(folder)
    assert (ours.first, ours.pad, ours.separator, ours.unknown, ours.mask) == (0, 1, 2, 3, 4)
    theirs = RobertaTokenizerFast(*parts(ours), mask_token=AddedToken("<mask>", lstrip=True))
    for text in (*TEXTS, *STRANGE, "the <mask> sat on<mask> the mat</s>"):
        assert ours.encode(text) == theirs(text, add_special_tokens=False)["input_ids"]


def test_a_tokenizer_json_beside_them_goes_first(tmp_path):
    folder = as_files(tmp_path / "files")
    (folder / "tokenizer.json").write_text(learn(["zz"], 257, []).to_json())
    assert len(open_tokenizer(folder)) == 257


@pytest.mark.parametrize("missing", ["vocab.json", "merges.txt"])
def test_half_of_a_tokenizer(missing, tmp_path):
    folder = as_files(tmp_path / "files")
    (folder / missing).unlink()
    with pytest.raises(CheckpointError, match=f"half of a tokenizer: {missing} is missing"):
        open_tokenizer(folder)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("vocab.json", "{"),
        ("vocab.json", "[]"),
        ("vocab.json", '{"a": "b"}'),
        ("vocab.json", "\xff"),
        ("merges.txt", "#version: 0.2\nx y z\n"),
        ("merges.txt", "#version: 0.2\nnot there\n"),
    ],
)
def test_damaged_files(file, content, tmp_path):
    folder = as_files(tmp_path / "files")
    (folder / file).write_bytes(content.encode("latin-1"))
    with pytest.raises(CheckpointError, match=r"vocab\.json and merges\.txt are damaged .*; fetch them again"):
        open_tokenizer(folder)


def test_byte_pairs_of_another_kind_are_left_to_others(tmp_path):
    folder = as_files(tmp_path / "files")
    (folder / "vocab.json").write_text(json.dumps({"a</w>": 0, "a": 1}))
    with pytest.raises(UnknownName, match="no tokenizer called"):
        open_tokenizer(folder)


# ----------------------------------------------------------------------------------------------------- the real thing


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory):
    """GPT-2's released files, and Transformers' tokenizer of them."""
    folder = tmp_path_factory.mktemp("gpt2")
    for theirs, ours in (("encoder.json", "vocab.json"), ("vocab.bpe", "merges.txt")):
        shutil.copy(Path(str(DATA), "tokenizers", "gpt2", theirs), folder / ours)
    return open_tokenizer(Path(str(DATA), "tokenizers", "gpt2")), GPT2TokenizerFast.from_pretrained(folder)


@real
def test_the_released_tokenizer_is_transformers(gpt2):
    ours, theirs = gpt2
    assert (len(ours), ours.end) == (50_257, 50_256)
    wikitext = Path(str(DATA), "text", "wikitext-2", "valid.txt").read_text(encoding="utf-8")[:200_000]
    for text in (wikitext, *STRANGE, "one text<|endoftext|>another"):
        assert ours.encode(text) == theirs(text)["input_ids"]
        assert ours.decode(ours.encode(text)) == text.replace("<|endoftext|>", "")


@real
def test_known_tokens(gpt2):
    """Of the README and issues of openai/gpt-2, and of everyone's first try."""
    assert gpt2[0].encode("Hello world") == [15496, 995]
    assert gpt2[0].encode("Hello, my dog is cute") == [15496, 11, 616, 3290, 318, 13779]
