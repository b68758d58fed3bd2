"""The simplest tokenizer: every character that occurs in the text is a token."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vitrail.data.text.tokenizer import Tokenizer, library
from vitrail.errors import DataError


def learn(texts: Sequence[str], vocabulary: int, special: Sequence[str]) -> Tokenizer:
    """A tokenizer of the characters in ``texts``, sorted, after the ``special`` tokens.

    A character that does not occur in them has no token of its own: it becomes the unknown one if ``special`` has one,
    else text that holds it cannot be encoded. Raises :class:`DataError` for more tokens than ``vocabulary`` allows.
    """
    package = library()
    characters = sorted(set().union(*map(set, texts)))
    tokens = [*special, *characters]
    if len(tokens) > vocabulary:
        raise DataError(
            f"the text has {len(characters)} different characters, more than the vocabulary of {vocabulary} allows; "
            "take another --tokenizer, or a larger --vocabulary."
        )
    unknown = next((token for token in special if token in ("[UNK]", "<unk>")), None)
    inner = package.Tokenizer(package.models.WordLevel(dict(zip(tokens, range(len(tokens)), strict=True)), unknown))
    inner.pre_tokenizer = package.pre_tokenizers.Split(package.Regex(r"[\s\S]"), behavior="isolated")
    inner.decoder = package.decoders.Fuse()
    inner.add_special_tokens(list(special))
    return Tokenizer(inner)


def opens(path: Path) -> Tokenizer | None:
    """No other library has files of such a tokenizer."""
    return None
