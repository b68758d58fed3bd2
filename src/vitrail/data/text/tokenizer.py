"""Text to tokens and back. The work is done by the library `tokenizers`; here is what of it the models need."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vitrail.errors import CheckpointError, DataError, SettingError

if TYPE_CHECKING:
    import tokenizers

FILE = "tokenizer.json"  # in a run's folder, and in the repositories of Transformers

# What libraries call the same special token.
SPELLINGS: dict[str, tuple[str, ...]] = {
    "pad": ("[PAD]", "<pad>"),
    "unknown": ("[UNK]", "<unk>"),
    "first": ("[CLS]", "<s>", "<|startoftext|>"),
    "separator": ("[SEP]", "</s>"),
    "mask": ("[MASK]", "<mask>"),
    "end": ("<|endoftext|>", "</s>", "[SEP]"),
}


class Tokenizer:
    """What turns text into token ids, with the ids of the special tokens that it has.

    Attributes:
        pad, unknown, first, separator, mask, end: ids of the tokens that fill up rows, stand for what is not known,
            begin an input, end a part of it, hide a token, end a text; None for what this tokenizer does not have.
    """

    def __init__(self, inner: tokenizers.Tokenizer) -> None:
        inner.no_padding()
        inner.no_truncation()  # what is too long is cut where it is used, and said
        self.inner = inner
        self.pad, self.unknown, self.first, self.separator, self.mask, self.end = (
            next((found for word in words if (found := inner.token_to_id(word)) is not None), None)
            for words in SPELLINGS.values()
        )

    def __len__(self) -> int:
        """Number of ids: one more than the greatest."""
        return max(self.inner.get_vocab(with_added_tokens=True).values()) + 1

    @property
    def special(self) -> frozenset[int]:
        """Ids of the tokens that are no text."""
        return frozenset(self.inner.get_added_tokens_decoder())

    def encode(self, text: str) -> list[int]:
        """Ids of a text, without special tokens around it.

        Raises :class:`DataError` for a character that the tokenizer does not have, where it has no token for such.
        """
        return self.encode_many([text])[0].tolist()

    def encode_many(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
        """Ids ``(n,)`` of each text, as of `encode`."""
        return [np.array(each.ids, dtype=np.int32) for each in self._encoded(self.inner.encode_batch_fast, texts)]

    def encode_with_spans(self, texts: Sequence[str]) -> list[tuple[NDArray[np.int32], NDArray[np.int64]]]:
        """The same, and the characters ``(n, 2)`` of the text, from the first to behind the last, of each token."""
        found = self._encoded(self.inner.encode_batch, texts)
        return [
            (np.array(each.ids, dtype=np.int32), np.array(each.offsets, dtype=np.int64).reshape(-1, 2))
            for each in found
        ]

    def _encoded(self, encode: Callable[..., Any], texts: Sequence[str]) -> list[Any]:
        try:
            found: list[Any] = encode(list(texts), add_special_tokens=False)
        except Exception as error:  # of the tokenizer's own library, which has no class for it
            unknown = next((each for text in texts for each in text if self.inner.token_to_id(each) is None), None)
            reason = f"the tokenizer does not know the character '{unknown}'" if unknown else str(error)
            raise DataError(f"the text cannot be turned into tokens: {reason}.") from error
        for text, each in zip(texts, found, strict=True):
            if not len(each.ids) and text.strip():
                raise DataError(f"the tokenizer knows none of the characters in '{text.strip()[:20]}'.")
        return found

    def decode(self, ids: Sequence[int], *, keep_special: bool = False) -> str:
        """The text of token ids."""
        return self.inner.decode(list(ids), skip_special_tokens=not keep_special)

    def token(self, index: int) -> str:
        """A token as the tokenizer spells it."""
        return self.inner.id_to_token(index) or f"#{index}"

    def joined(self, documents: Sequence[NDArray[np.int32]]) -> NDArray[np.int32]:
        """Documents in a row, with the token that ends a text after each but the last, if there is one."""
        between = [] if self.end is None else [np.array([self.end], dtype=np.int32)]
        parts = [part for document in documents for part in (document, *between)]
        return np.concatenate(parts[: len(parts) - len(between)]) if documents else np.empty(0, np.int32)

    def to_json(self) -> str:
        """All of it, as `tokenizers` writes it."""
        return self.inner.to_str()

    @classmethod
    def from_json(cls, text: str) -> Tokenizer:
        """Raises :class:`CheckpointError` for what no tokenizer wrote."""
        try:
            return cls(library().Tokenizer.from_str(text))
        except Exception as error:  # of the tokenizer's own library, which has no class for it
            raise CheckpointError(f"{FILE} is damaged, or of a newer `tokenizers` ({error}).") from error


def library() -> Any:
    """The package `tokenizers`. Raises :class:`SettingError` where it is not installed."""
    try:
        import tokenizers
    except ImportError as error:
        raise SettingError("text is turned into tokens by a package: pip install 'vitrail[text]'.") from error
    return tokenizers


class Kind(NamedTuple):
    """How a tokenizer is made of texts: ``learn(texts, vocabulary, special)``; and which files of others it opens.

    ``opens`` gets a file or folder and returns None if that is none of its own.
    """

    learn: Callable[[Sequence[str], int, Sequence[str]], Tokenizer] | None
    opens: Callable[[Path], Tokenizer | None]


def open_file(path: Path) -> Tokenizer | None:
    """A ``tokenizer.json``, or a folder that has one."""
    file = path / FILE if path.is_dir() else path
    if file.name != FILE or not file.is_file():
        return None
    return Tokenizer.from_json(file.read_text(encoding="utf-8"))
