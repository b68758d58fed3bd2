"""Derivatives of a class's logit: what methods of explanation that ask what it depends on have in common."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from vitrail.nn.features import Features
from vitrail.tasks import Classification


def gradients(logits: Tensor, classes: Tensor, inputs: Sequence[Tensor]) -> list[Tensor | None]:
    """The derivatives of each image's logit of its class by each of ``inputs``; None where it does not depend on it.

    Nothing is added to any ``.grad``. In evaluation mode no image's logit depends on another image, so that the
    derivatives of the sum of logits are those of each.

    Args:
        logits: ``(B, K)``.
        classes: ``(B,)`` int64.
        inputs: tensors of the logits' graph, the images first in their shape.
    """
    if not logits.requires_grad:
        return [None] * len(inputs)
    with differentiating():
        chosen = logits.gather(1, classes.clone()[:, None]).sum()
        return list(torch.autograd.grad(chosen, inputs, allow_unused=True))


def with_features(task: Classification, images: Tensor) -> tuple[Tensor, Features]:
    """The logits ``(B, K)`` of images, and the features that they come from, in one graph of derivatives.

    The parameters take part as leaves of this graph alone: so there is one though all of them are frozen, and though
    there are no derivatives by the pixels (iGPT, which numbers colours).
    """
    seen: list[Features] = []

    def keep(backbone: nn.Module, inputs: Any, features: Features) -> None:
        seen.append(features)

    with differentiating(), task.backbone.register_forward_hook(keep):
        leaves = {name: parameter.detach().requires_grad_() for name, parameter in task.named_parameters()}
        logits = functional_call(task, leaves, (images,))
    return logits, seen[0]


@contextmanager
def differentiating() -> Iterator[None]:
    """While this is open derivatives are kept, whatever is the case outside of it."""
    with torch.inference_mode(False), torch.enable_grad():
        yield
