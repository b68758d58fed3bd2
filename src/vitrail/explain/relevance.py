"""Relevance: attention weighted by the gradient of a class, through all layers (Chefer et al. 2021, ICCV,
arXiv:2103.15679)."""

from __future__ import annotations

import torch
from torch import Tensor

from vitrail.errors import SettingError
from vitrail.explain.gradients import gradients, with_features
from vitrail.explain.look import Look
from vitrail.explain.record import Recorded, attention_in_graph
from vitrail.explain.shares import as_map, carried_down, layers_up_to, read_from
from vitrail.tasks import Classification


def relevance(task: Classification, images: Tensor, classes: Tensor, look: Look) -> Tensor:
    """How much each place speaks for a class: a map ``(B, h, w)``, 0 or more, of the finest layer.

    In each layer Ā is the mean over the heads of (∇A ⊙ A)⁺, ∇A being the gradient of the class's logit (eq. 5), and
    R ← R + Ā R from the identity on (eq. 6). The map is the row of R of the class token, where the vector of the image
    is read from that, and the mean of all rows where it is the mean of the places; the identity, which would give every
    place the same, is left out of it. Attention pooling adds its own row Ā, as the paper's decoders do.

    Args:
        task: in evaluation mode; its parameters may be frozen, and no ``.grad`` is touched.
        images: ``(B, C, H, W)`` uint8.
        classes: ``(B,)`` int64.
        look: to be left empty, as all layers and heads count.

    Raises :class:`SettingError` for a model without attention, or if a layer or a head is asked for.
    """
    if look.layer is not None or look.head is not None:
        raise SettingError("relevance goes through all layers and heads; leave layer and head out.")
    names = layers_up_to(task, None)
    with attention_in_graph(task.backbone, names) as recorded:
        logits, _ = with_features(task, images)
    layers = [recorded[name] for name in names]
    slopes = gradients(logits, classes, [layer.probabilities for layer in layers])
    with torch.no_grad():
        matrices = [_weighted(layer, slope) for layer, slope in zip(layers, slopes, strict=True)]
        _, brought = carried_down(layers, matrices, read_from(layers[-1], task.backbone.class_tokens))
        return as_map(brought, layers[0], task.backbone.lag)


def _weighted(layer: Recorded, slope: Tensor | None) -> Tensor:
    """Ā of equation 5: 0 where the class does not depend on the layer."""
    if slope is None:
        return torch.zeros_like(layer.matrix())
    return (slope * layer.probabilities).clamp(min=0).mean(dim=-3)
