"""Word pieces (Schuster and Nakajima 2012; Wu et al. 2016, section 4.1): BERT's tokens.

Words are cut at spaces and signs; of a word the longest piece that is known is taken from its front, again and again.
Pieces that continue a word are written with ## before them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vitrail.data.text.tokenizer import Tokenizer, library
from vitrail.errors import CheckpointError, DataError, SettingError

FILE, CONFIG = "vocab.txt", "tokenizer_config.json"
NEEDED = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
CONTINUES = "##"


def learn(texts: Sequence[str], vocabulary: int, special: Sequence[str]) -> Tokenizer:
    """A tokenizer of at most ``vocabulary`` tokens: the ``special`` ones, all characters, and frequent pieces of words.

    Upper case and accents are not told apart, as in BERT's uncased models. Raises :class:`SettingError` for a
    vocabulary that has no room for the characters, :class:`DataError` for text without words.
    """
    package = library()
    special = special if "[UNK]" in special else ("[UNK]", *special)
    inner = of_words(package.models.WordPiece(unk_token="[UNK]"), lowercase=True)
    known = [*special, *characters(inner, texts)]
    if len(known) == len(special):
        raise DataError("the text has no words to learn pieces of; give other text, or --tokenizer characters.")
    if len(known) > vocabulary:
        raise SettingError(
            f"word pieces of this text need a --vocabulary of at least {len(known):,}, for every character; not "
            f"{vocabulary:,}."
        )
    trainer = package.trainers.WordPieceTrainer(
        vocab_size=vocabulary,
        special_tokens=known,
        continuing_subword_prefix=CONTINUES,
        show_progress=sys.stderr.isatty(),
    )
    inner.train_from_iterator(texts, trainer, length=len(texts))
    pieces = inner.get_vocab(with_added_tokens=True)
    learned = of_words(package.models.WordPiece(pieces, unk_token="[UNK]"), lowercase=True)
    learned.add_special_tokens(list(special))
    return Tokenizer(learned)


def characters(inner: Any, texts: Sequence[str]) -> list[str]:
    """All characters that begin a word and, with ##, all that continue one.

    The trainer would number them in an order that another process does not repeat, and of two pieces that are as
    frequent takes the one of lower numbers: it has to find them numbered.
    """
    words: set[str] = set()
    for text in texts:
        cleaned = inner.normalizer.normalize_str(text)
        words.update(word for word, _ in inner.pre_tokenizer.pre_tokenize_str(cleaned))
    first = sorted({word[0] for word in words})
    return first + [f"{CONTINUES}{letter}" for letter in sorted({letter for word in words for letter in word[1:]})]


def opens(path: Path) -> Tokenizer | None:
    """BERT's, from a ``vocab.txt`` (or another ``…vocab.txt``) or a folder with one; None where there is none.

    Upper case and accents are told apart where the ``tokenizer_config.json`` beside it says so; without one, where the
    pieces have upper case.

    Raises :class:`CheckpointError` for a file that is damaged.
    """
    file = found(path)
    if file is None:
        return None
    try:
        words = file.read_text(encoding="utf-8").rstrip("\n").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{file} cannot be read ({error}); fetch it again.") from error
    if missing := [word for word in NEEDED if word not in words]:
        raise CheckpointError(f"{file} has no {', '.join(missing)}, one a line; it is no vocabulary of BERT.")
    package = library()
    model = package.models.WordPiece({word: number for number, word in enumerate(words)}, unk_token="[UNK]")
    stated = _stated(file.parent / CONFIG)
    cased = any(word.isascii() and word.isalpha() and word[0].isupper() for word in words)
    lowercase = stated.get("do_lower_case", not cased)
    inner = of_words(model, lowercase, stated.get("strip_accents"), stated.get("tokenize_chinese_chars", True))
    inner.add_special_tokens(list(NEEDED))
    return Tokenizer(inner)


def found(path: Path) -> Path | None:
    """The file with the vocabulary, if ``path`` is one or the folder of one."""
    if path.is_dir():
        there = [path / FILE] if (path / FILE).is_file() else sorted(path.glob(f"*{FILE}"))
        return there[0] if len(there) == 1 else None
    return path if path.name.endswith(FILE) else None


def of_words(model: Any, lowercase: bool, strip_accents: bool | None = None, chinese: bool = True) -> Any:
    """A tokenizer of the package `tokenizers` that cleans and cuts words as BERT's.

    Args:
        strip_accents: None for as ``lowercase``.
        chinese: whether each Chinese character is a word.
    """
    package = library()
    inner = package.Tokenizer(model)
    inner.normalizer = package.normalizers.BertNormalizer(
        clean_text=True, handle_chinese_chars=chinese, strip_accents=strip_accents, lowercase=lowercase
    )
    inner.pre_tokenizer = package.pre_tokenizers.BertPreTokenizer()
    inner.decoder = package.decoders.WordPiece(prefix=CONTINUES)
    return inner


def continues_word(tokenizer: Tokenizer) -> list[bool]:
    """Of each token whether it continues the word of the one before it.

    Pieces that do are written with ## in BERT; in byte pairs and sentence pieces those that do not, with Ġ or ▁.
    Raises :class:`SettingError` for a tokenizer of which neither is true, such as one of characters.
    """
    words = [tokenizer.token(number) for number in range(len(tokenizer))]
    if any(word.startswith(CONTINUES) and word != CONTINUES for word in words):
        return [word.startswith(CONTINUES) and word != CONTINUES for word in words]
    if any(word.startswith(("Ġ", "▁")) for word in words):
        return [
            not word.startswith(("Ġ", "▁", "Ċ")) and number not in tokenizer.special
            for number, word in enumerate(words)
        ]
    raise SettingError(
        "this tokenizer does not say where words begin; leave out whole_words, or take --tokenizer words."
    )


def _stated(file: Path) -> dict[str, Any]:
    """What a ``tokenizer_config.json`` says; nothing without one. Raises :class:`CheckpointError` for damage."""
    try:
        stated = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file} cannot be read ({error}); fetch it again.") from error
    return stated if isinstance(stated, dict) else {}
