"""Spans of a text that are taken out, as a function of each row's draw: what span corruption learns from.

As T5 does it (Raffel et al., JMLR 2020, arXiv:1910.10683, sections 3.1.4 and 3.3.4; in its code `random_spans_helper`,
`random_spans_noise_mask` and `noise_span_to_unique_sentinel`), but that a text may also end with what stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from vitrail.data.rng import uniform
from vitrail.errors import SettingError


class Lengths(NamedTuple):
    """How many tokens there are of everything; the same in all rows, so that batches are rectangular.

    Attributes:
        window: tokens of the text in a row.
        hidden: of them, those that are taken out.
        spans: the pieces that they are taken out in.
    """

    window: int
    hidden: int
    spans: int

    @property
    def source(self) -> int:
        """Tokens that are read: what stays, a sentinel a span, and the end."""
        return self.window - self.hidden + self.spans + 1

    @property
    def target(self) -> int:
        """Tokens that are written: what was taken out, a sentinel a span, and the end."""
        return self.hidden + self.spans + 1


def longest(context: int, mask_ratio: float, span: float) -> Lengths:
    """The longest window that, once spans of it are taken out, fits a context, read as well as written.

    Args:
        context: most tokens of one input.
        mask_ratio: the share of tokens that is taken out.
        span: the mean length of what is taken out in one piece.

    Raises :class:`SettingError` where no window does, or nothing or everything would be hidden.
    """
    if not 0 < mask_ratio < 1 or span < 1:
        raise SettingError(
            f"a mask ratio of {mask_ratio} in spans of {span} tokens makes no sense; some tokens must be hidden and "
            "some seen, and a span has at least one."
        )
    best = None
    window = 2
    while max((found := lengths_of(window, mask_ratio, span)).source, found.target) <= context:
        best, window = found, window + 1
    if best is None:
        raise SettingError(f"a context of {context} tokens is too small to hide spans in; give a larger --context.")
    return best


def lengths_of(window: int, mask_ratio: float, span: float) -> Lengths:
    """How many tokens of a window are taken out, and in how many spans."""
    hidden = min(max(round(window * mask_ratio), 1), window - 1)
    spans = min(max(round(hidden / span), 1), window - hidden)  # something stays before each of them
    return Lengths(window, hidden, spans)


def corrupted(
    ids: Tensor, draws: Tensor, lengths: Lengths, sentinels: Sequence[int], end: int
) -> tuple[Tensor, Tensor]:
    """What is read ``(B, source)`` and what is to be written ``(B, target)`` of texts ``ids (B, window)``, all int64.

    In both what the other has is replaced, span by span, by the sentinels in their order; the ``end`` follows.

    Args:
        draws: ``(B,)`` int64; they alone decide what is taken out.
        sentinels: ids, at least as many as there are spans.
    """
    hidden = hidden_spans(draws, lengths)
    marks = ids.new_tensor(list(sentinels[: lengths.spans]))
    return marked(ids, hidden, marks, lengths.source - 1, end), marked(ids, ~hidden, marks, lengths.target - 1, end)


def marked(ids: Tensor, left_out: Tensor, marks: Tensor, count: int, end: int) -> Tensor:
    """Rows of which each span ``left_out (B, T)`` has become one mark; ``count`` tokens are left, an end follows.

    There may be one span more than marks, at the end of a row: it leaves nothing.
    """
    begins = left_out & ~F.pad(left_out, (1, 0))[:, :-1]
    tokens = torch.where(begins, marks[(begins.cumsum(dim=1) - 1).clamp(0, len(marks) - 1)], ids)
    goes = left_out & ~begins
    order = goes.long().argsort(dim=1, stable=True)[:, :count]
    return F.pad(tokens.gather(1, order), (0, 1), value=end)


def hidden_spans(draws: Tensor, lengths: Lengths) -> Tensor:
    """Which tokens are taken out, ``(B, window)`` bool; the first never is.

    What stays and what is taken out are cut into pieces that take turns, every way of cutting being as likely. In T5's
    code the last token always goes, so that no text ends but with a gap; here one piece that stays may follow.
    """
    window, hidden, spans = lengths
    stay, go = uniform(draws, window - 1).split([window - hidden, hidden - 1], dim=1)
    stays = random_pieces(stay, spans + 1)  # of one token more, the last: so that the last piece may be empty
    pieces = torch.stack([stays[:, :-1], random_pieces(go, spans)], dim=2).flatten(1)
    places = torch.arange(window, device=draws.device).expand(len(draws), -1).contiguous()
    return torch.searchsorted(pieces.cumsum(dim=1), places, right=True) % 2 == 1


def random_pieces(numbers: Tensor, pieces: int) -> Tensor:
    """Lengths ``(B, pieces)`` of the pieces of n + 1 tokens, none empty, cut where ``numbers (B, n)`` are least."""
    cuts = numbers.argsort(dim=1)[:, : pieces - 1].sort(dim=1).values + 1
    ends = F.pad(cuts, (1, 1))
    ends[:, -1] = numbers.shape[1] + 1
    return ends.diff(dim=1)
