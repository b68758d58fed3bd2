"""How far heads look: the mean attention distance (Dosovitskiy et al. 2021, ViT, figure 7 and appendix D.7)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vitrail.explain.record import Recorded, record_attention
from vitrail.explain.shares import layers_up_to
from vitrail.metrics.draw import BLUE, DPI, GRID, INK
from vitrail.tasks import Classification

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@torch.no_grad()
def attention_distances(task: Classification, images: Tensor) -> dict[str, list[float]]:
    """For each layer the mean attention distance of each head in pixels, over images ``(B, C, H, W)`` uint8.

    Attention pooling, whose probe is at no place, is left out. The recorded attention of all images is in memory at
    once: give a few. Raises :class:`SettingError` for a model without attention.
    """
    names = layers_up_to(task, None)
    with record_attention(task.backbone, names) as recorded:
        task.features(images)
    size = (images.shape[-2], images.shape[-1])
    return {
        name: mean_attention_distance(layer, size).tolist() for name, layer in recorded.items() if layer.reach.skipped
    }


def mean_attention_distance(layer: Recorded, image_size: tuple[int, int]) -> Tensor:
    """How far each head of a layer looks: the distances between places, weighted by attention.

    Returns ``(heads,)`` in pixels between the centres of places, the mean over queries and images; only attention from
    places to places counts. A place of a reduced map is at the middle of what it covers.
    """
    scale = layer.probabilities.new_tensor(image_size)
    queries, keys = (centres * scale for centres in layer.reach.centres(layer.probabilities))
    distances = torch.linalg.vector_norm(queries[..., :, None, :] - keys[..., None, :, :], dim=-1)
    counts = ~distances.isnan()
    looks = layer.probabilities * counts
    means = (looks * distances.nan_to_num()).sum(dim=-1) / looks.sum(dim=-1).clamp(min=torch.finfo(looks.dtype).tiny)
    at_places = counts.any(dim=-1).expand_as(means)
    over = [dim for dim in range(means.ndim) if dim != means.ndim - 2]  # all but the heads
    return (means * at_places).sum(dim=over) / at_places.sum(dim=over)


def draw_distances(distances: Mapping[str, Sequence[float]]) -> Figure:
    """The distances of `attention_distances`: the layers side by side, a point for each head, and a line of means."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(max(4.2, 1.6 + 0.22 * len(distances)), 3.4), dpi=DPI, layout="constrained")
    figure.set_facecolor("white")
    axes = figure.subplots()
    plot_distances(axes, distances)
    axes.set_title("how far heads look", loc="left", color=INK, fontsize=11)
    axes.legend(frameon=False, labelcolor=INK, fontsize=9)
    return figure


def plot_distances(axes: Axes, distances: Mapping[str, Sequence[float]]) -> None:
    """The same into axes that are there, without title and legend."""
    from matplotlib.ticker import MaxNLocator

    numbers = range(1, len(distances) + 1)
    means = [sum(heads) / len(heads) for heads in distances.values()]
    axes.plot(numbers, means, color=BLUE, linewidth=1.2, label="mean of the heads")
    points = [(number, head) for number, heads in zip(numbers, distances.values(), strict=True) for head in heads]
    layers, pixels = zip(*points, strict=True)
    axes.scatter(layers, pixels, s=14, color=INK, alpha=0.6, linewidth=0, label="a head")
    axes.set_ylim(bottom=0)
    axes.set_xlabel("layer", color=INK, fontsize=10)
    axes.set_ylabel("mean attention distance in pixels", color=INK, fontsize=10)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.tick_params(colors=INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
