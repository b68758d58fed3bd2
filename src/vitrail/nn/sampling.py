"""From logits to one token: by chance, among the likely ones.

Temperature (Ackley et al. 1985), the k likeliest (Fan et al. 2018, arXiv:1805.04833), the nucleus (Holtzman et al.
2020, arXiv:1904.09751, section 3.1); applied in this order, as everywhere.
"""

from __future__ import annotations

import torch
from torch import Tensor


def sample(
    logits: Tensor,
    generator: torch.Generator,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
) -> Tensor:
    """One token ``(…,)`` int64 for each row of ``logits (…, V)``; the likeliest where the temperature is 0.

    ``generator`` is of the CPU, so that the same one gives the same tokens on every device. Other arguments as of
    `probabilities`.
    """
    if temperature == 0:
        return logits.argmax(dim=-1)
    chances = probabilities(logits, temperature=temperature, top_k=top_k, top_p=top_p).cpu()
    drawn = torch.multinomial(chances.view(-1, chances.shape[-1]), 1, generator=generator)
    return drawn.view(chances.shape[:-1]).to(logits.device)


def probabilities(
    logits: Tensor, *, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None
) -> Tensor:
    """What tokens are drawn by, ``(…, V)`` float32, of ``logits (…, V)``; rows sum to 1.

    Args:
        temperature: above 0; what the logits are divided by.
        top_k: only so many of the likeliest tokens, and those that are as likely as the last of them; all where None.
        top_p: only the smallest set of the likeliest tokens that together have at least this probability; all where
            None.
    """
    scores = logits.float() / temperature
    if top_k is not None:
        scores = only_likeliest(scores, top_k)
    if top_p is not None and top_p < 1:
        scores = only_nucleus(scores, top_p)
    return scores.softmax(dim=-1)


def only_likeliest(scores: Tensor, k: int) -> Tensor:
    """Scores ``(…, V)`` with -inf for those below the k-th."""
    least = scores.topk(min(k, scores.shape[-1]), dim=-1).values[..., -1:]
    return scores.masked_fill(scores < least, float("-inf"))


def only_nucleus(scores: Tensor, p: float) -> Tensor:
    """Scores ``(…, V)`` with -inf for those outside the smallest set whose probability is at least p."""
    falling, order = scores.sort(dim=-1, descending=True, stable=True)
    chances = falling.softmax(dim=-1)
    before = chances.cumsum(dim=-1) - chances  # of all that are likelier; 0 for the first, which always stays
    left_out = torch.zeros_like(before, dtype=torch.bool).scatter(-1, order, before >= p)
    return scores.masked_fill(left_out, float("-inf"))
