"""Attention rollout (Abnar and Zuidema 2020): how much of each place arrives in the vector through all layers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vitrail.errors import SettingError
from vitrail.explain.look import Look
from vitrail.explain.record import Recorded, record_attention
from vitrail.explain.shares import as_map, carried_down, layers_up_to, read_from, to_sum_1
from vitrail.tasks import Classification


@torch.no_grad()
def rollout(task: Classification, images: Tensor, classes: Tensor, look: Look) -> Tensor:
    """How much of each place arrives in the vector of the image: a map ``(B, h, w)`` of the finest layer, sum 1.

    Arguments and errors as of `attention.attention`; ``look.layer`` is where the vector is read, and there is no head
    to choose.
    """
    if look.head is not None:
        raise SettingError("rollout goes through all heads; leave the head out, or choose the method attention.")
    names = layers_up_to(task, look.layer)
    with record_attention(task.backbone, names) as recorded:
        task.features(images)
    return rolled_out([recorded[name] for name in names], task.backbone.class_tokens, task.backbone.lag)


def rolled_out(layers: Sequence[Recorded], class_tokens: int, lag: int = 0) -> Tensor:
    """The same of recorded layers, the first one first (eq. 1).

    Each layer hands on half of what it was given, which is its residual connection, and half of what its heads look at
    on average: 0.5 A + 0.5 I. As only shares are asked for, the halves need not be taken. Attention pooling has no
    residual connection. The shares of a coarser stage go evenly to the places of the one before that were merged.
    """
    alone, brought = carried_down(layers, [layer.matrix() for layer in layers], read_from(layers[-1], class_tokens))
    return to_sum_1(as_map(alone + brought, layers[0], lag).flatten(1)).unflatten(1, layers[0].grid)
