"""What one layer looks at: for the vector of the image, and from each place to each other."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from vitrail.explain.look import Look
from vitrail.explain.record import Recorded, record_attention
from vitrail.explain.shares import as_map, layers_up_to, over_places, read_from, to_sum_1
from vitrail.nn.reach import Grid, spread
from vitrail.tasks import Classification

MOST_PLACES = 28  # a side, of what `attention_between` tells


@torch.no_grad()
def attention(task: Classification, images: Tensor, classes: Tensor, look: Look) -> Tensor:
    """How much one layer looks at each place for the vector of the image: a map ``(B, h, w)`` that sums to 1.

    That is the row of the class token (with distillation, the mean of both rows), the mean of all places' rows in a
    model that pools these, or the probe's row in attention pooling, which is the last layer where there is one. What
    falls on other tokens, or on the padding of a window, is left out.

    Args:
        task: in evaluation mode.
        images: ``(B, C, H, W)`` uint8.
        classes: make no difference.
        look: the layer, counted from 1 as `attention_layers` lists them, and the head; None for the last layer and the
            mean of the heads.

    Raises :class:`SettingError` for a model without attention, without that layer or that head.
    """
    layer = _look(task, images, look.layer)
    shares = layer.reach.carry(layer.matrix(look.head), read_from(layer, task.backbone.class_tokens))
    return to_sum_1(as_map(shares, layer, task.backbone.lag).flatten(1)).unflatten(1, layer.grid)


@dataclass(frozen=True, eq=False)
class Between:
    """What the places of an image look at in one layer.

    Attributes:
        attention: ``(heads, n, n)`` float32 on the CPU, from each place (row) to each other: rows sum to 1, what falls
            on tokens that are no place being left out; all 0 for a place that sees none of the image. In attention
            pooling, where no place looks, every row is the probe's.
        grid: rows and columns of the n places; places of a finer map are taken together to at most 28 x 28.
        vector: ``(heads, n)``, the same for the class token (with distillation, for both) or the probe; None where the
            vector of the image comes from all places.
    """

    attention: Tensor
    grid: Grid
    vector: Tensor | None


@torch.no_grad()
def attention_between(task: Classification, image: Tensor, layer: int | None = None) -> Between:
    """Who looks where in an image ``(C, H, W)`` uint8, in a layer counted from 1, or in the last one.

    Raises :class:`SettingError` for a model without attention, or without that layer.
    """
    seen = _look(task, image[None], layer)
    grid = _coarser(seen.grid)
    vector = None
    if not seen.reach.skipped or 0 < task.backbone.class_tokens <= seen.prefix:
        vector = _rows(seen, read_from(seen, task.backbone.class_tokens), grid, task.backbone.lag)[:, 0]
    if vector is not None and not seen.reach.skipped:
        return Between(vector[:, None].expand(-1, grid[0] * grid[1], -1).clone(), grid, vector)
    each = torch.eye(grid[0] * grid[1], device=seen.probabilities.device)[None]
    queries = F.pad(spread(each, grid, seen.grid), (seen.prefix, 0))
    return Between(_rows(seen, queries, grid, task.backbone.lag), grid, vector)


def _look(task: Classification, images: Tensor, number: int | None) -> Recorded:
    name = layers_up_to(task, number)[-1]
    with record_attention(task.backbone, [name]) as recorded:
        task.features(images)
    return recorded[name]


def _rows(layer: Recorded, queries: Tensor, grid: Grid, lag: int) -> Tensor:
    """What queries ``(1, Q, T)`` look at, head by head: ``(heads, Q, n)`` on a coarser grid."""
    heads = [layer.reach.carry(layer.matrix(head), queries)[0] for head in range(1, layer.heads + 1)]
    places = to_sum_1(over_places(torch.stack(heads), layer, lag))
    return spread(places, layer.grid, grid).cpu()


def _coarser(grid: Grid) -> Grid:
    together = -(-max(grid) // MOST_PLACES)
    return (-(-grid[0] // together), -(-grid[1] // together))
