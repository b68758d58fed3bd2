"""What a model knows of where things are: how alike its positions are, as a picture of small maps."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from vitrail.errors import SettingError
from vitrail.explain.mosaic import mosaic
from vitrail.explain.record import attention_layers
from vitrail.metrics.draw import DPI, INK, short_name
from vitrail.models.swin.swin import Stage
from vitrail.models.vit.vit import ViT
from vitrail.nn.backbone import Backbone
from vitrail.nn.position import sincos_2d
from vitrail.nn.rope import Rotation

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST = 14  # small maps in a row or column of the picture; of more, some are left out, evenly
SIMILARITY, BIAS = "cosine similarity", "added to the logits"


@dataclass(frozen=True, eq=False)
class PositionMaps:
    """Small maps of one kind of positions.

    Attributes:
        what: whose positions they are.
        unit: `SIMILARITY` or `BIAS`.
        maps: ``(rows, columns, h, w)`` float32. Of similarity, rows and columns are those of the grid, and each map
            says how alike the position of this place and of every other one are. Of Swin's biases, a row is a block and
            a column a head, and a map has a value for each offset from query to key, with no offset in its middle.
    """

    what: str
    unit: str
    maps: NDArray


@torch.no_grad()
def positions(backbone: Backbone) -> list[PositionMaps]:
    """All kinds of positions of a model: learned or fixed vectors, rotations, biases; PVT has some for each stage.

    Of rotary positions the vector of a place is the cosines and sines of its angles. The similarity of two is then the
    mean cosine of their difference, over features, heads and layers: what is left on average of a product of a query
    and a key by their being apart.

    Raises :class:`SettingError` for a model without any.
    """
    found = [
        PositionMaps(what, SIMILARITY, position_similarity(vectors, grid).numpy())
        for what, vectors, grid in [*_vectors(backbone), *_rotations(backbone)]
    ]
    found += _biases(backbone)
    if not found:
        raise SettingError(
            "this model has no positions to show: what it knows of places comes from its convolutions; "
            "take a transformer with learned, fixed or rotary positions."
        )
    return found


def position_similarity(vectors: Tensor, grid: tuple[int, int]) -> Tensor:
    """Cosine similarity of the position of each place with all others (Dosovitskiy et al. 2021, figure 7, centre).

    Args:
        vectors: ``(P + h · w, D)`` float, those of the places last, row by row.
        grid: h and w.

    Returns:
        ``(h, w, h, w)`` float32: for each place a map.
    """
    unit = F.normalize(vectors[-grid[0] * grid[1] :].float(), dim=1)
    return (unit @ unit.T).view(*grid, *grid)


def _vectors(backbone: Backbone) -> list[tuple[str, Tensor, tuple[int, int]]]:
    """Positions that are added to tokens, with their grids."""
    found = []
    for name, module in backbone.named_modules():
        vectors = getattr(module, "positions", None)
        if isinstance(vectors, Tensor):
            kind = "learned" if isinstance(vectors, nn.Parameter) else "fixed"
            grid: Any = getattr(module, "grid", backbone.config.image_size)  # iGPT has a place for each pixel
            found.append((f"{kind} positions{name and f' of {name}'}", vectors[0].cpu(), grid))
    if isinstance(backbone, ViT) and backbone.config.position == "sincos":
        fixed = sincos_2d(backbone.grid, backbone.config.width)
        found.append(("fixed positions, sine-cosine", fixed, backbone.grid))
    return found


def _rotations(backbone: Backbone) -> list[tuple[str, Tensor, tuple[int, int]]]:
    """The rotations that the layers of attention are given for an image, as vectors of all layers and heads."""
    seen: dict[int, Rotation] = {}  # most models have one for all layers

    def keep(layer: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        seen.update({id(x): x for x in (*inputs, *named.values()) if isinstance(x, Rotation)})

    blank = next(backbone.parameters()).new_zeros(1, backbone.config.channels, *backbone.config.image_size)
    with ExitStack() as hooks:
        for name in attention_layers(backbone):
            hooks.enter_context(backbone.get_submodule(name).register_forward_pre_hook(keep, with_kwargs=True))
        grid: Any = backbone(blank).grid
    if not seen:
        return []
    angles = [torch.cat([each.cos, each.sin], dim=-1) for each in seen.values()]
    vectors = [x if x.ndim == 2 else x.transpose(0, 1).flatten(1) for x in angles]  # (N, 2 d), or (N, heads · 2 d)
    return [("rotary positions, mean of layers and heads", torch.cat(vectors, dim=1).cpu(), grid)]


def _biases(backbone: Backbone) -> list[PositionMaps]:
    """Swin's relative positions: a table of each block and head."""
    stages = [module for module in backbone.modules() if isinstance(module, Stage)]
    return [
        PositionMaps(f"relative positions of stage {number}: blocks × heads", BIAS, _tables(stage))
        for number, stage in enumerate(stages, start=1)
    ]


def _tables(stage: Stage) -> NDArray:
    height, width = stage.window
    tables = torch.stack([block.get_parameter("attention.bias_table").T for block in stage.blocks])
    return tables.unflatten(2, (2 * height - 1, 2 * width - 1)).float().cpu().numpy()


def plot_positions(axes: Axes, found: PositionMaps) -> Any:
    """One kind of positions, at most 14 × 14 of its maps; returns what a colour bar explains."""
    rows, columns = (_spread(count) for count in found.maps.shape[:2])
    shown = found.maps[np.ix_(rows, columns)]
    picture = mosaic(shown.reshape(-1, *shown.shape[2:], 1), len(columns), between=np.nan)[:, :, 0]
    axes.set_axis_off()
    if found.unit == SIMILARITY:
        return axes.imshow(picture, cmap="viridis", vmax=1, interpolation="nearest")
    largest = np.abs(shown).max()
    return axes.imshow(picture, cmap="RdBu_r", vmin=-largest, vmax=largest, interpolation="nearest")


def draw_positions(kinds: Sequence[PositionMaps], title: str) -> Figure:
    """All kinds of positions of a model side by side, each with its colour bar."""
    from matplotlib.figure import Figure

    count = len(kinds)
    columns = min(count, 2)
    rows = -(-count // columns)
    figure = Figure(figsize=(6.2 * columns, 5.2 * rows + 0.4), dpi=DPI, layout="constrained", facecolor="white")
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat[count:]:
        axes.set_axis_off()
    for axes, found in zip(grid.flat, kinds, strict=False):
        bar = figure.colorbar(plot_positions(axes, found), ax=axes, shrink=0.7, aspect=28)
        bar.set_label(found.unit, color=INK, fontsize=9)
        bar.ax.tick_params(colors=INK, labelsize=8)
        bar.outline.set_visible(False)
        axes.set_title(found.what, loc="left", color=INK, fontsize=9)
    figure.suptitle(short_name(title, 60), color=INK, fontsize=11)
    return figure


def _spread(count: int) -> NDArray:
    return np.linspace(0, count - 1, min(count, MOST)).round().astype(int)
