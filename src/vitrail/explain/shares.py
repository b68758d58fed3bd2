"""Shares of the tokens in an image's vector, handed down from layer to layer to the places of the image.

The vector is read from some tokens behind the last layer; each of these took from the tokens before the layer what its
attention says, and itself over the residual connection; and so on down. That is a row times a matrix for each layer,
never a matrix times a matrix.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from vitrail.errors import SettingError
from vitrail.explain.record import Recorded, attention_layers
from vitrail.nn.reach import spread
from vitrail.tasks import Classification


def layers_up_to(task: Classification, number: int | None) -> list[str]:
    """Names of the attention layers of the task's backbone up to a number, counted from 1; None for all.

    Raises :class:`SettingError` for a model without attention, or without that layer.
    """
    names = list(attention_layers(task.backbone))
    if not names:
        raise SettingError(
            f"{task.model} has no attention to show; explain a run of a vision transformer, or take another method, "
            "such as gradcam or occlusion."
        )
    if number is None:
        return names
    if not 1 <= number <= len(names):
        raise SettingError(f"there is no layer {number}; this {task.model} has layers 1 to {len(names)}.")
    return names[:number]


def read_from(layer: Recorded, class_tokens: int) -> Tensor:
    """Shares ``(B, 1, T)`` of the tokens behind a layer, were the vector of the image read there: they sum to 1.

    From the first ``class_tokens`` if the layer has them, or from all places alike; of attention pooling, whose answer
    is the vector, ``(B, 1, 1)``.
    """
    batch = layer.probabilities.shape[0]
    if not layer.reach.skipped:
        return layer.probabilities.new_ones(batch, 1, 1)
    shares = layer.probabilities.new_zeros(batch, 1, layer.prefix + layer.places)
    if 0 < class_tokens <= layer.prefix:
        shares[..., :class_tokens] = 1 / class_tokens
    else:
        shares[..., layer.prefix :] = 1 / layer.places
    return shares


def carried_down(layers: Sequence[Recorded], matrices: Sequence[Tensor], shares: Tensor) -> tuple[Tensor, Tensor]:
    """Shares ``(B, Q, T)`` of the tokens behind the last layer as those of the tokens before the first.

    Each layer hands on what it was given times A + I, A being its matrix and I its residual connection.

    Args:
        layers: the first one first; a layer on a finer map than the next one gets that one's shares spread over it.
        matrices: A of each, as of `Recorded.matrix`.
        shares: of the last layer's queries.

    Returns:
        What came down over the residual connections alone, and what attention brought; their sum is all of it.
    """
    alone, brought, above = shares, torch.zeros_like(shares), None
    for layer, matrix in zip(reversed(layers), reversed(matrices), strict=True):
        if above is not None:
            alone, brought = _behind(layer, above, alone), _behind(layer, above, brought)
        arrived = layer.reach.carry(matrix, alone + brought)
        if layer.reach.skipped:
            brought = brought + arrived
        else:
            alone, brought = torch.zeros_like(arrived), arrived
        above = layer
    return alone, brought


def _behind(layer: Recorded, above: Recorded, shares: Tensor) -> Tensor:
    """Shares of the tokens before the layer ``above`` as those of the tokens behind this one."""
    if (layer.grid, layer.prefix) == (above.grid, above.prefix):
        return shares
    places = spread(shares[..., above.prefix :], above.grid, layer.grid)
    return F.pad(places, (layer.prefix, 0))  # a token that joins above comes from no place of the image


def over_places(shares: Tensor, layer: Recorded, lag: int) -> Tensor:
    """Shares ``(…, T)`` of the tokens before a layer as those ``(…, h · w)`` of the places that they were made of."""
    return F.pad(shares[..., layer.prefix + lag :], (0, lag))


def as_map(shares: Tensor, layer: Recorded, lag: int) -> Tensor:
    """Shares ``(B, 1, T)`` of the tokens before a layer as a map ``(B, h, w)``."""
    return over_places(shares, layer, lag)[:, 0].unflatten(1, layer.grid)


def to_sum_1(shares: Tensor) -> Tensor:
    """Rows ``(…, n)`` divided by their sums; what is 0 all through stays so."""
    return shares / shares.sum(dim=-1, keepdim=True).clamp(min=torch.finfo(shares.dtype).tiny)
