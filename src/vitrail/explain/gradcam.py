"""Grad-CAM: which of the last layer's features speak for a class, and where they are.

Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization", ICCV 2017,
arXiv:1610.02391; and Chattopadhay et al., "Grad-CAM++", WACV 2018, arXiv:1710.11063.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitrail.explain.gradients import gradients, with_features
from vitrail.explain.record import attention_layers
from vitrail.nn.features import Features
from vitrail.tasks import Classification


def gradcam(task: Classification, images: Tensor, classes: Tensor) -> Tensor:
    """Where features are that raise the logit of a class: Grad-CAM (eq. 1 and 2).

    A channel's weight is the mean of the logit's derivatives by it over all places; the map is the weighted sum of the
    channels, where it is positive.

    Args:
        task: in evaluation mode; its parameters may be frozen, and get no ``.grad``.
        images: ``(B, C, H, W)``, uint8, or float and normalised.
        classes: ``(B,)`` int64, the class of each image.

    Returns:
        ``(B, h, w)`` float32, 0 or more, on the grid of `last_activation`.
    """
    activation, gradient = last_activation(task, images, classes)
    weights = gradient.mean(dim=(2, 3), keepdim=True)
    return (weights * activation).sum(dim=1).relu()


def gradcam_plus_plus(task: Classification, images: Tensor, classes: Tensor) -> Tensor:
    """The same with `plus_plus_weights`, by which each place counts for itself; arguments as of `gradcam`."""
    activation, gradient = last_activation(task, images, classes)
    weights = plus_plus_weights(activation, gradient)[..., None, None]
    return (weights * activation).sum(dim=1).relu()


def plus_plus_weights(activation: Tensor, gradient: Tensor) -> Tensor:
    """The weights of channels in Grad-CAM++, Σ α · relu(g) over the places (eq. 5), but for one factor an image.

    α is g² / (2 g² + Σ A · g³) for a derivative g (eq. 19): what the paper's quotient of second and third derivatives
    comes to for the exponential of a logit that is linear in the activation A. Where g is above 0, and only there α
    counts, α · g is g / (2 + Σ A · g). The paper's activations come from a ReLU; of others the positive ones are summed
    up, so that no divisor is below 2.

    Args:
        activation, gradient: ``(B, D, h, w)``.

    Returns:
        ``(B, D)``, 0 or more.
    """
    rising = gradient.relu()
    total = activation.relu().sum(dim=(2, 3), keepdim=True)
    return (rising / (2 + total * rising)).sum(dim=(2, 3))


def last_activation(task: Classification, images: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
    """The last activation with places that the class depends on, and its derivatives: two of ``(B, D, h, w)`` float32.

    It is the last feature map, or the last tokens, as far as the classifier reads these (convolutional networks, Swin,
    PVT v2, and transformers that pool by mean or attention). Where it reads the class token alone, the last places
    count for nothing; then it is what goes into the last attention layer, from which the class token takes what it
    says.
    """
    with last_attention_input(task.backbone) as inputs:
        logits, features = with_features(task, images)
    places = [features.maps[-1], features.tokens]
    places += [tokens for tokens in inputs if tokens.shape[:2] == features.tokens.shape[:2]]
    maps = [torch.zeros_like(places[0])] * 2
    for activation, derivatives in zip(places, gradients(logits, classes, places), strict=True):
        if derivatives is not None and as_map(derivatives, features).any():
            maps = [activation.detach(), derivatives]
            break
    activation, gradient = (as_map(x, features, task.backbone.lag).float() for x in maps)
    return activation, gradient


@contextmanager
def last_attention_input(model: nn.Module) -> Iterator[list[Tensor]]:
    """While this is open, keep what the last attention layer reads when the model runs; nothing where none runs."""
    seen: list[Tensor] = []

    def keep(layer: nn.Module, inputs: tuple[Any, ...]) -> None:
        seen[:] = [inputs[0]]

    with ExitStack() as hooks:
        for name in attention_layers(model):
            hooks.enter_context(model.get_submodule(name).register_forward_pre_hook(keep))
        yield seen


def as_map(x: Tensor, features: Features, lag: int = 0) -> Tensor:
    """A map ``(B, D, h, w)`` as it is; tokens ``(B, P + N, D)`` as such a map of the places that they were made of.

    ``lag`` as of `Backbone`: by so many places the tokens stand behind.
    """
    if x.ndim == 4:
        return x
    places = F.pad(x[:, features.prefix + lag :], (0, 0, 0, lag))
    return places.transpose(1, 2).unflatten(2, features.grid)
