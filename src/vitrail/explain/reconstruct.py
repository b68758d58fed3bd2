"""What a masked autoencoder paints in the place of the patches that it does not see."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vitrail.data.sample import Image
from vitrail.objectives.mae import MAE, count_seen, patchify, unpatchify


@dataclass(frozen=True, eq=False)
class Reconstruction:
    """One image in three states, each ``(H, W, 1 or 3)`` uint8.

    Attributes:
        masked: the hidden patches in the mean colour.
        painted: what the decoder paints in their place, between the patches that were seen, as they are.
        original: the image as the model would see it.
        hidden: which patches are hidden, ``(h, w)``.
        error: mean squared error over the hidden patches, in the images' normalised pixels, whatever was learned.
    """

    masked: Image
    painted: Image
    original: Image
    hidden: NDArray[np.bool_]
    error: float


@torch.inference_mode()
def reconstruct(learner: MAE, images: Tensor, draws: Tensor, mask_ratio: float | None = None) -> list[Reconstruction]:
    """Hide patches of uint8 images ``(B, C, H, W)`` and paint them again, on the learner's device.

    Where each patch was standardised in training, the decoder paints no patch's mean and deviation; those of the hidden
    patches themselves are then used, which flatters picture and error.

    Args:
        draws: ``(B,)`` int64; each decides which patches of its image are hidden.
        mask_ratio: the share that is hidden; None for that of training.

    Raises :class:`SettingError` for a share that hides no patch, or all.
    """
    pixels = learner.normalized(images)
    order = learner.order(draws)
    seen = learner.seen if mask_ratio is None else count_seen(order.shape[1], mask_ratio)
    hidden = torch.ones_like(order, dtype=torch.bool).scatter(1, order[:, :seen], False)
    patches = patchify(pixels, learner.backbone.config.patch_size)
    painted = learner.pixels(learner.paint(pixels, order[:, :seen]), pixels)
    errors = error_of_hidden(painted, patches, hidden)
    states = (
        _as_images(learner, torch.where(hidden.unsqueeze(-1), fill, patches))
        for fill in (patches.new_zeros(()), painted, patches)
    )
    of_patches = hidden.unflatten(1, learner.backbone.grid).cpu().numpy()
    return [Reconstruction(*row) for row in zip(*states, of_patches, errors.tolist(), strict=True)]


def error_of_hidden(painted: Tensor, patches: Tensor, hidden: Tensor) -> Tensor:
    """Mean squared error ``(B,)`` of patches ``(B, N, p · p · C)`` over those where ``hidden (B, N)``."""
    each = (painted - patches).square().mean(dim=-1)
    return (each * hidden).sum(dim=1) / hidden.sum(dim=1)


def _as_images(learner: MAE, patches: Tensor) -> list[Image]:
    pixels = unpatchify(patches, learner.backbone.grid, learner.backbone.config.patch_size)
    return list(learner.preprocess.denormalize(pixels).permute(0, 2, 3, 1).cpu().numpy())
