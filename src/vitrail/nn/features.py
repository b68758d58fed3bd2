"""What a backbone hands to a head: the one seam between models and tasks."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Features:
    """A backbone's answer for a batch of B inputs. A head reads nothing else of a backbone.

    Attributes:
        tokens: ``(B, P + N, D)``, the P prefix tokens (class, distillation, registers) first, then the N tokens of the
            grid in row-major order.
        prefix: P, the number of prefix tokens.
        grid: the shape of the N tokens: ``(h, w)`` for an image, ``(t, h, w)`` for video, ``(t,)`` for text.
        pooled: ``(B, W)``, one vector an input, pooled as the paper of the model pools; W is the backbone's ``width``,
            which is D but where the paper puts layers between grid and vector (LeNet).
        maps: feature maps ``(B, C_i, H_i, W_i)`` from fine to coarse; a plain transformer has one.
        auxiliary: maps ``(B, C_i, H_i, W_i)`` from the middle of the network for classifiers that only help in training
            (GoogLeNet), in the order of the layers.
    """

    tokens: Tensor
    prefix: int
    grid: tuple[int, ...]
    pooled: Tensor
    maps: tuple[Tensor, ...]
    auxiliary: tuple[Tensor, ...] = ()
