"""Pairs of stretches of text: does the second one come after the first (Devlin et al. 2019, section 3.1)?

Documents are cut into sentences. A pair begins with some sentences in a row, A; then come either those that follow, or
others from elsewhere, B. What is too long is cut at either end, as BERT's own program for its data does it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset as TorchDataset

from vitrail.data.rng import generator
from vitrail.data.text.batch import TextBatch
from vitrail.data.text.tokenizer import Tokenizer
from vitrail.data.text.windows import EndlessBatches
from vitrail.errors import DataError, SettingError

# Tokens with which a sentence ends; Ċ is how byte pairs spell the end of a line.
ENDS = (".", "!", "?", "…", "。", "\n", "Ċ")
SPELLING = "Ġ▁#"  # what tokenizers write before a token, of the space before it
SHORT = 0.1  # the share of pairs that are shorter than they could be, for tasks whose texts are
FOLLOWED = 0.1  # the least share of sentences that another follows in their document
EVALUATION_SEED = 0


class Pair(NamedTuple):
    """Two stretches of text, token ids ``(n,)`` each, and whether the second one is from elsewhere."""

    first: NDArray[np.int32]
    second: NDArray[np.int32]
    elsewhere: bool


@dataclass(frozen=True)
class Sentences:
    """Documents cut into sentences.

    Attributes:
        ids: ``(N,)`` int32, all documents in a row.
        starts: ``(S + 1,)`` where each of the S sentences begins in ``ids``, and the end.
        documents: ``(S,)`` the number of the document of each.
        tokenizer: whose ids they are, with a first token, a separator and one that fills up.
        context: most tokens of a pair, with the three special ones.
    """

    ids: NDArray[np.int32]
    starts: NDArray[np.int64]
    documents: NDArray[np.int64]
    tokenizer: Tokenizer
    context: int

    @classmethod
    def of(cls, documents: Sequence[NDArray[np.int32]], tokenizer: Tokenizer, context: int) -> Sentences:
        """Cut documents after each full stop, exclamation or question mark and line, and where half a pair is full.

        Raises :class:`DataError` for text of which no pairs can be made, :class:`SettingError` for a context without
        room for them.
        """
        if (most := (context - 3) // 2) < 1:
            raise SettingError(f"a context of {context} has no room for two texts and three special tokens.")
        ends = sentence_ends(tokenizer)
        cuts = [cut(document, ends, most) for document in documents]
        lengths = np.concatenate([np.empty(0, np.int64), *cuts])
        numbers = np.repeat(np.arange(len(cuts)), [len(each) for each in cuts])
        starts = np.concatenate([[0], lengths.cumsum()])
        if starts[-1] < 2 * context or len(lengths) < 4:
            raise DataError(
                f"the text has {starts[-1]} tokens in {len(lengths)} sentences, too few for pairs of up to {context} "
                "tokens; give more, or a smaller --context."
            )
        if np.mean(numbers[1:] == numbers[:-1]) < FOLLOWED:
            raise DataError(
                "nearly all documents are one sentence, which no other follows; give longer ones, or leave out "
                "next_sentence."
            )
        return cls(np.concatenate(list(documents)), starts, numbers, tokenizer, context)

    def __len__(self) -> int:
        return len(self.documents)

    @property
    def room(self) -> int:
        """Tokens of text in a pair: all but the first token and two separators."""
        return self.context - 3

    def between(self, first: int, last: int) -> NDArray[np.int32]:
        """Token ids of the sentences ``first`` … ``last - 1``."""
        return self.ids[self.starts[first] : self.starts[last]]

    def document(self, sentence: int) -> tuple[int, int]:
        """The first sentence of the document that a sentence is of, and the end of it."""
        number = self.documents[sentence]
        return int(np.searchsorted(self.documents, number)), int(np.searchsorted(self.documents, number, side="right"))

    def stretch(self, first: int, tokens: int) -> int:
        """The end of the sentences from ``first`` on that have so many tokens, or of its document before that."""
        enough = int(np.searchsorted(self.starts, self.starts[first] + tokens))
        return max(first + 1, min(enough, self.document(first)[1]))

    def pair(self, first: int, rng: np.random.Generator) -> Pair:
        """The pair whose A begins with the sentence ``first``."""
        tokens = int(rng.integers(2, self.room, endpoint=True)) if rng.random() < SHORT else self.room
        last = self.stretch(first, tokens)
        middle = int(rng.integers(first + 1, last)) if last - first > 1 else last
        a = self.between(first, middle)
        if elsewhere := bool(middle == last or rng.random() < 0.5):
            other = self.elsewhere(first, last, rng)
            b = self.between(other, self.stretch(other, max(1, tokens - len(a))))
        else:
            b = self.between(middle, last)
        return Pair(*truncated(a, b, self.room, rng), elsewhere)

    def elsewhere(self, first: int, last: int, rng: np.random.Generator) -> int:
        """A sentence of another document; if there is one document only, one that is not ``first`` … ``last - 1``."""
        low, high = self.document(first)
        if high - low == len(self):
            low, high = first, last
        return int(high + rng.integers(len(self) - (high - low))) % len(self)

    def batch(self, pairs: Sequence[Pair], names: Sequence[str], draws: NDArray[np.int64], step: int) -> TextBatch:
        """Pairs as rows of ``context`` tokens, filled up; label 0 where B comes next, 1 where it is from elsewhere."""
        shape = (len(pairs), self.context)
        ids, segments, mask = np.full(shape, self.tokenizer.pad), np.zeros(shape, np.int64), np.zeros(shape, bool)
        for row, pair in enumerate(pairs):
            separator = [self.tokenizer.separator]
            tokens = np.concatenate([[self.tokenizer.first], pair.first, separator, pair.second, separator])
            ids[row, : len(tokens)], mask[row, : len(tokens)] = tokens, True
            segments[row, len(pair.first) + 2 : len(tokens)] = 1
        return TextBatch(
            torch.from_numpy(ids.astype(np.int64)),
            tuple(names),
            torch.from_numpy(draws),
            torch.from_numpy(segments),
            torch.from_numpy(mask),
            torch.tensor([int(pair.elsewhere) for pair in pairs]),
            step,
        )


@dataclass(frozen=True)
class TrainingPairs(EndlessBatches):
    """Endless batches of pairs that begin with any sentence; ``pairs[n]`` for any n ≥ 0.

    Arguments as of `TrainingWindows`. Raises :class:`SettingError` for a batch size that makes no sense.
    """

    sentences: Sentences
    batch_size: int
    seed: int = 0
    rank: int = 0
    world: int = 1

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.batch_size % self.world:
            raise SettingError(f"the batch size {self.batch_size} does not divide into {self.world} equal parts.")

    @property
    def steps_per_epoch(self) -> int:
        return max(1, len(self.sentences.ids) // (self.sentences.room * self.batch_size))

    def __getitem__(self, step: int) -> TextBatch:
        rng = generator(self.seed, "window", step)
        firsts = rng.integers(len(self.sentences), size=self.batch_size)
        draws = rng.integers(2**63, size=self.batch_size)
        rows = self.batch_size // self.world
        mine = range(self.rank * rows, (self.rank + 1) * rows)
        pairs = [self.sentences.pair(int(firsts[row]), generator(self.seed, "pair", step, row)) for row in mine]
        return self.sentences.batch(
            pairs, [f"sentence {firsts[row]}" for row in mine], draws[mine.start : mine.stop], step
        )


@dataclass(frozen=True)
class EvaluationPairs(TorchDataset[TextBatch]):
    """Pairs that begin where the one before could have ended, through all of the text; always the same ones.

    With several processes each sees every ``world``-th. Of more pairs than ``most`` only so many are taken, evenly
    spread.
    """

    sentences: Sentences
    batch_size: int
    rank: int = 0
    world: int = 1
    most: int | None = None

    def __len__(self) -> int:
        return -(-len(self._mine) // self.batch_size)

    def __getitem__(self, step: int) -> TextBatch:
        firsts = self._mine[step * self.batch_size : (step + 1) * self.batch_size]
        pairs = [self.sentences.pair(int(first), generator(EVALUATION_SEED, "pair", int(first))) for first in firsts]
        return self.sentences.batch(pairs, [f"sentence {first}" for first in firsts], firsts, step)

    @cached_property
    def _mine(self) -> NDArray[np.int64]:
        firsts = [0]
        while (following := self.sentences.stretch(firsts[-1], self.sentences.room)) < len(self.sentences):
            firsts.append(following)
        spread = np.linspace(0, len(firsts) - 1, min(len(firsts), self.most or len(firsts)))
        return np.array(firsts)[spread.astype(np.int64)][self.rank :: self.world]


def sentence_ends(tokenizer: Tokenizer) -> NDArray[np.bool_]:
    """Whether a sentence ends with each of the tokens, ``(V,)``."""
    words = (tokenizer.token(number).lstrip(SPELLING) for number in range(len(tokenizer)))
    return np.array([bool(word) and word.rstrip(" ").endswith(ENDS) for word in words])


def cut(document: NDArray[np.int32], ends: NDArray[np.bool_], most: int) -> NDArray[np.int64]:
    """The lengths of a document's sentences: up to where one ends and no other end follows; at most ``most`` tokens."""
    if not len(document):
        return np.empty(0, np.int64)
    last = ends[document]
    last = last & ~np.append(last[1:], False)  # dots and empty lines in a row belong together
    last[-1] = True
    lengths = np.diff(np.flatnonzero(last) + 1, prepend=0)
    pieces = -(-lengths // most)
    cuts = np.full(pieces.sum(), most)
    cuts[pieces.cumsum() - 1] = lengths - (pieces - 1) * most
    return cuts


def truncated(
    first: NDArray[np.int32], second: NDArray[np.int32], room: int, rng: np.random.Generator
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Two stretches that fit into ``room`` tokens together: as long as they do not, the longer one loses a token.

    From its front or its end, by chance. Source: ``truncate_seq_pair`` of google-research/bert.
    """
    while len(first) + len(second) > room:
        front = rng.random() < 0.5
        if len(first) > len(second):
            first = first[1:] if front else first[:-1]
        else:
            second = second[1:] if front else second[:-1]
    return first, second
