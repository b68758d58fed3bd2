"""What the first layer of a network looks for: its kernels as small pictures, or what they have in common."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from numpy.typing import NDArray
from torch import Tensor

from vitrail.errors import SettingError
from vitrail.explain.mosaic import mosaic
from vitrail.metrics.draw import DPI, INK, short_name
from vitrail.nn.backbone import Backbone

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_KERNELS = 64  # that can be looked at one by one
COMPONENTS = 28  # of more kernels, as in the ViT paper


@dataclass(frozen=True, eq=False)
class FirstLayer:
    """Pictures of a first layer.

    Attributes:
        tiles: ``(n, h, w, 1 or 3)`` float32 in 0 … 1, each with a scale of its own.
        caption: what they are.
    """

    tiles: NDArray
    caption: str


def first_layer(backbone: Backbone) -> FirstLayer:
    """The kernels that read the image; of more than 64 their first 28 principal components.

    Raises :class:`SettingError` for a model without such kernels (iGPT).
    """
    kernels = input_kernels(backbone)
    count, height, width = kernels.shape[0], *kernels.shape[2:]
    if count <= MOST_KERNELS:
        return FirstLayer(as_tiles(kernels), f"all {count} kernels of {height} × {width} pixels")
    components, shares = patch_components(kernels)
    what = f"first {len(components)} principal components of {count:,} kernels of {height} × {width} pixels"
    return FirstLayer(as_tiles(components), f"{what}: {100 * shares.sum():.0f} % of their variance")


def input_kernels(backbone: Backbone) -> Tensor:
    """The kernels ``(D, C, h, w)`` float32 that read the image, on the CPU.

    A linear map of square windows, as T2T's, has such kernels, too; T2T's are those of its queries, keys and values.
    """
    name = getattr(backbone, "input_kernel", None)
    if name is None:
        raise SettingError("this model looks the colours of pixels up in a table; it has no kernels to show.")
    weight = backbone.state_dict()[name].float().cpu()
    if weight.ndim == 2:
        channels = backbone.config.channels
        side = math.isqrt(weight.shape[1] // channels)
        weight = weight.unflatten(1, (channels, side, side))
    return weight


def patch_components(kernels: Tensor, count: int = COMPONENTS) -> tuple[Tensor, Tensor]:
    """Principal components of a patch embedding's kernels (Dosovitskiy et al. 2021, figure 7, left).

    Args:
        kernels: ``(D, C, h, w)`` float32.
        count: of the components; there are no more than min(D - 1, C · h · w).

    Returns:
        ``(n, C, h, w)`` float32 of length 1, each with its largest value above 0, and their shares ``(n,)`` of the
        kernels' variance, from the largest on.
    """
    flat = kernels.flatten(1).double()
    _, deviations, components = torch.linalg.svd(flat - flat.mean(dim=0), full_matrices=False)
    count = min(count, len(flat) - 1, flat.shape[1])
    shares = deviations.square() / deviations.square().sum()
    largest = components.gather(1, components.abs().argmax(dim=1, keepdim=True))
    signed = components * largest.sign()
    return signed[:count].unflatten(1, kernels.shape[1:]).float(), shares[:count].float()


def as_tiles(kernels: Tensor) -> NDArray:
    """Kernels ``(n, C, h, w)`` as pictures ``(n, h, w, 1 or 3)``: 0 is the smallest value of each, 1 its largest.

    Of kernels with other than 1 or 3 channels their mean is shown.
    """
    if kernels.shape[1] not in (1, 3):
        kernels = kernels.mean(dim=1, keepdim=True)
    low, high = kernels.amin(dim=(1, 2, 3), keepdim=True), kernels.amax(dim=(1, 2, 3), keepdim=True)
    scaled = (kernels - low) / (high - low).clamp_min(1e-12)
    return scaled.permute(0, 2, 3, 1).numpy()


def draw_tiles(axes: Axes, layer: FirstLayer) -> None:
    """All tiles as one grid, row by row; 28 components in rows of 7, as in the ViT paper."""
    picture = mosaic(layer.tiles, 7 if len(layer.tiles) == COMPONENTS else None)
    axes.imshow(picture, cmap="gray", vmin=0, vmax=1)
    axes.set_axis_off()


def draw_first_layer(layer: FirstLayer, title: str) -> Figure:
    """The tiles under a title and their caption."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 5.2), dpi=DPI, layout="constrained", facecolor="white")
    axes = figure.subplots()
    draw_tiles(axes, layer)
    axes.set_title(f"{short_name(title, 60)}\n{layer.caption}", loc="left", color=INK, fontsize=9)
    return figure
