"""One answer for an image, to the last bit, whatever other images it is computed together with.

The libraries below PyTorch choose a product's kernel by its shape, and kernels differ in the order in which they sum.
So an image alone may get other last bits than the same image among others. With PyTorch 2.13 on a CPU (MKL, oneDNN)
products of one row, of two and three, and of four and more have different kernels, and convolutions have one for a
single image; behind the pooling a product has as many rows as there are images. On a GPU any size may have its own.

Therefore products of few rows are filled up with zeros, and batches with black images: on a CPU to 4, from where on
the answers of all models in the table are alike; elsewhere every batch is one of 32.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from vitrail.nn.packed import ROWS, filled_up
from vitrail.train.precision import products_in

ON_CPU, ELSEWHERE = 4, 32  # images

Compute = Callable[[Tensor], Tensor]  # (B, C, H, W) uint8 to (B, K)


def least(device: torch.device) -> int:
    """To how many images batches are filled up on a device."""
    return ON_CPU if device.type == "cpu" else ELSEWHERE


def alike(compute: Compute, images: Tensor, dtype: torch.dtype, fewest: int | None = None) -> Tensor:
    """What ``compute`` makes of each image, ``(B, K)``, products being of ``dtype``, without gradients.

    Args:
        compute: from images on one device to a row each, such as a classifier.
        images: ``(B, C, H, W)`` uint8.
        dtype: bfloat16 or float32.
        fewest: to how many images the batch is filled up; `least` where None.
    """
    device = images.device
    parts = (images,) if device.type == "cpu" else images.split(ELSEWHERE)
    with torch.inference_mode(), products_in(dtype, device), FullProducts():
        return torch.cat([compute(_filled(part, fewest or least(device)))[: len(part)] for part in parts])


def fewest_alike(compute: Compute, images: Tensor, dtype: torch.dtype) -> int | None:
    """How few images may be computed at once for the same bits as a batch of all: 1 to `least`, which is always safe.

    The last of ``images``, which have other places in a smaller batch, are computed in batches of several sizes. None
    if even a batch of `least` or one more has other bits.
    """
    safe, whole = least(images.device), alike(compute, images, dtype)
    fewest = None
    for size in sorted({1, 2, 3, safe, safe + 1}, reverse=True):
        if not torch.equal(alike(compute, images[-size:], dtype, fewest=1), whole[-size:]):
            return fewest
        fewest = size if size <= safe else fewest
    return fewest


class FullProducts(TorchFunctionMode):
    """A context in which linear maps of fewer than `ROWS` rows are computed with rows of zeros added."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.linear and args and (rows := args[0].shape[:-1].numel()) < ROWS:
            x, *others = args
            y = func(filled_up(x.reshape(rows, -1)), *others, **(kwargs or {}))
            return y[:rows].reshape(*x.shape[:-1], -1)
        return func(*args, **(kwargs or {}))


def _filled(images: Tensor, count: int) -> Tensor:
    """The images with black ones behind them if there are fewer than ``count``; laid out in memory as loaders do it.

    Another layout, channels first, would be convolved by another kernel.
    """
    B, *shape = images.shape
    size = (max(B, count), *shape)
    filled = torch.empty(size, dtype=images.dtype, device=images.device, memory_format=torch.channels_last)
    filled[:B], filled[B:] = images, 0
    return filled
