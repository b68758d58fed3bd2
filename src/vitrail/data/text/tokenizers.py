"""The tokenizers by name: one table, and the one doorway to them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vitrail.data.text import bytepair, characters, sentencepiece, tokenizer, wordpiece
from vitrail.data.text.tokenizer import Kind, Tokenizer
from vitrail.errors import UnknownName

KINDS: dict[str, Kind] = {
    "characters": Kind(characters.learn, characters.opens),
    "file": Kind(None, tokenizer.open_file),
    "byte-pairs": Kind(bytepair.learn, bytepair.opens),
    "words": Kind(wordpiece.learn, wordpiece.opens),
    "pieces": Kind(sentencepiece.learn, sentencepiece.opens),
}


def find_tokenizer(wanted: str, texts: Sequence[str], vocabulary: int, special: Sequence[str]) -> Tokenizer:
    """A tokenizer learned from ``texts``, if ``wanted`` names a kind that learns; else the one in that file or folder.

    Raises :class:`UnknownName` for what is neither, and what each kind raises.
    """
    kind = KINDS.get(wanted)
    if kind is not None and kind.learn is not None:
        return kind.learn(texts, vocabulary, special)
    return open_tokenizer(wanted)


def open_tokenizer(reference: str | Path) -> Tokenizer:
    """The tokenizer in a file or folder. Raises :class:`UnknownName` if no kind opens it."""
    path = Path(reference).expanduser()
    if path.exists():
        for kind in KINDS.values():
            if (found := kind.opens(path)) is not None:
                return found
    raise UnknownName("tokenizer", str(reference), [name for name, kind in KINDS.items() if kind.learn is not None])
