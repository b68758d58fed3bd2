"""How texts become the input of a model: special tokens around them, parts told apart, what is too long cut."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vitrail.data.text.tokenizer import Tokenizer
from vitrail.errors import SettingError

IDS = NDArray[np.int32]


class Frame(NamedTuple):
    """The special tokens that stand before, between and after the parts of an input.

    ``apart`` is whether the second part has a segment of its own.
    """

    before: tuple[int, ...]
    between: tuple[int, ...]
    after: tuple[int, ...]
    apart: bool = True

    def room(self, length: int, parts: int) -> int:
        """Tokens of text in an input of ``length``. Raises :class:`SettingError` if not one a part is left."""
        room = length - len(self.before) - len(self.after) - (parts - 1) * len(self.between)
        if room < parts:
            raise SettingError(f"{length} tokens leave no room for {parts} text(s) among the special ones; take more.")
        return room


class Joined(NamedTuple):
    """An input.

    Attributes:
        ids: ``(n,)`` int32.
        segments: ``(n,)`` int8, 0 for the first text and the special tokens around it, 1 for the second and its end,
            where they are told apart.
        starts: where each text begins in ``ids``.
        lost: how many tokens of text were cut.
    """

    ids: IDS
    segments: NDArray[np.int8]
    starts: tuple[int, ...]
    lost: int


def frame(tokenizer: Tokenizer) -> Frame:
    """The special tokens of the models that a tokenizer is of.

    BERT: [CLS] a [SEP] b [SEP]. RoBERTa, whose first token is <s>: <s> a </s></s> b </s>, all of one segment. GPT has
    but the token that ends a text: a <|endoftext|> b <|endoftext|>.
    """
    last = tokenizer.separator if tokenizer.separator is not None else tokenizer.end
    after = () if last is None else (last,)
    if tokenizer.first is None:
        return Frame((), after, after)
    roberta = tokenizer.token(tokenizer.first) == "<s>"
    return Frame((tokenizer.first,), after * 2 if roberta else after, after, apart=not roberta)


def joined(frame: Frame, first: IDS, second: IDS | None, length: int) -> Joined:
    """One text, or two, as an input of at most ``length`` tokens; of two the longer one is cut first, as in BERT.

    Raises :class:`SettingError` for a length without room for text, or two texts that nothing keeps apart.
    """
    room = frame.room(length, 1 if second is None else 2)
    if second is None:
        a = first[:room]
        ids = np.concatenate([frame.before, a, frame.after]).astype(np.int32)
        return Joined(ids, np.zeros(len(ids), np.int8), (len(frame.before),), len(first) - len(a))
    if not frame.between:
        raise SettingError("the tokenizer has no token to stand between two texts; take another one.")
    a, b = first[: max(-(-room // 2), room - len(second))], second[: max(room // 2, room - len(first))]
    ids = np.concatenate([frame.before, a, frame.between, b, frame.after]).astype(np.int32)
    start = len(frame.before) + len(a) + len(frame.between)
    segments = ((np.arange(len(ids)) >= start) & frame.apart).astype(np.int8)
    return Joined(ids, segments, (len(frame.before), start), len(first) + len(second) - len(a) - len(b))


def first_pieces(words: tuple[str, ...], spans: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each word the number of its first token, -1 for one that has none.

    Args:
        words: with a space between two of them they are the text.
        spans: the characters ``(n, 2)`` of that text that each token stands for.
    """
    lengths = np.array([len(word) for word in words])
    starts = np.cumsum(lengths + 1) - lengths - 1
    first = np.searchsorted(spans[:, 1], starts, side="right")  # the first token that ends behind the word's start
    within = np.append(spans[:, 0], np.iinfo(np.int64).max)[first] < starts + lengths
    return np.where(within, first, -1)
