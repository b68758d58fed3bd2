"""From a model that says what may come next to a whole sequence: token by token, or by beam search.

Beam search keeps the best few beginnings, not only the best (Sutskever et al. 2014, section 3.2). An end that has come
is compared by its log-probability over its length to the power of a penalty, as in Transformers; 0 compares
probabilities, larger penalties favour longer answers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor


class Writer(Protocol):
    """What writes a batch of sequences, token by token, and remembers what it wrote."""

    def step(self, last: Tensor) -> Tensor:
        """The last token ``(B,)`` of each sequence to logits ``(B, V)`` for the next one."""

    def select(self, rows: Tensor) -> None:
        """Go on with these rows ``(B',)`` of the batch, in this order; a row may be taken more than once."""


class Answer(NamedTuple):
    """A finished sequence.

    Attributes:
        ids: its tokens without the one that it began from; the last is the end, unless it was cut.
        score: its log-probability in nats over its length to the power of the penalty.
    """

    ids: tuple[int, ...]
    score: float


def greedy(logits: Tensor) -> Tensor:
    """The likeliest token ``(B,)`` of ``logits (B, V)``."""
    return logits.argmax(dim=-1)


def token_by_token(
    writer: Writer, first: Tensor, end: int, most: int, choose: Callable[[Tensor], Tensor] = greedy
) -> Tensor:
    """A batch of sequences, each token chosen when those before it are.

    Args:
        writer: fresh, with B sequences.
        first: ``(B,)`` int64, the token that each begins from.
        end: the token after which a sequence has nothing but ends.
        most: most tokens that are written.
        choose: a token ``(B,)`` for each row of ``logits (B, V)``.

    Returns ``(B, T)`` int64, T at most ``most``, without the first token.
    """
    last, done = first, torch.zeros_like(first, dtype=torch.bool)
    written: list[Tensor] = []
    while len(written) < most and not bool(done.all()):
        last = choose(writer.step(last)).masked_fill(done, end)
        done = done | (last == end)
        written.append(last)
    return torch.stack(written, dim=1) if written else first.new_empty(len(first), 0)


def beam_search(
    writer: Writer, first: Tensor, end: int, most: int, *, beams: int = 4, length_penalty: float = 1.0
) -> list[Answer]:
    """At most ``beams`` answers, from the best on.

    The search is over when as many have ended and no beginning scores better than the worst of them, as it stands; or
    after ``most`` tokens, where what has not ended counts as it is.

    Args:
        writer: fresh, with one sequence.
        first: ``(1,)`` int64, the token that it begins from.
        end, most: as of `token_by_token`.
        beams: how many beginnings are kept.
        length_penalty: the power of the length that a log-probability is divided by.
    """
    running, found = [Answer((), 0.0)], list[Answer]()
    last = first
    for length in range(1, most + 1):
        going_on: list[tuple[int, Answer]] = []
        for place, (row, answer) in enumerate(likeliest(running, writer.step(last), 2 * beams)):
            if answer.ids[-1] != end and length < most:
                going_on.append((row, answer))
            elif place < beams:  # a beginning that so many others overtake would not be kept either
                found.append(answer._replace(score=answer.score / length**length_penalty))
        found = sorted(found, key=lambda answer: -answer.score)[:beams]
        going_on = going_on[:beams]
        if not going_on or (len(found) == beams and going_on[0][1].score / length**length_penalty <= found[-1].score):
            break
        running = [answer for _, answer in going_on]
        writer.select(first.new_tensor([row for row, _ in going_on]))
        last = first.new_tensor([answer.ids[-1] for answer in running])
    return found


def likeliest(running: list[Answer], logits: Tensor, count: int) -> list[tuple[int, Answer]]:
    """The likeliest ``count`` of all beginnings with one more token, each with the row that it goes on from.

    Args:
        running: R beginnings, scored by their log-probability.
        logits: ``(R, V)`` for the next token of each.
    """
    before = logits.new_tensor([answer.score for answer in running], dtype=torch.float32)
    totals = (logits.float().log_softmax(dim=-1) + before.unsqueeze(1)).flatten()
    scores, places = totals.topk(min(count, len(totals)))
    rows, tokens = places // logits.shape[-1], places % logits.shape[-1]
    return [
        (row, Answer((*running[row].ids, token), score))
        for row, token, score in zip(rows.tolist(), tokens.tolist(), scores.tolist(), strict=True)
    ]
