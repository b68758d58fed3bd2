"""What the layers of a model pay attention to, recorded beside its forward pass, or put into its graph."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from vitrail.errors import SettingError, UnknownName
from vitrail.nn.backbone import Backbone, Network
from vitrail.nn.features import Features
from vitrail.nn.reach import AttentionLayer, Full, Grid, Reach


@dataclass(frozen=True, eq=False)
class Recorded:
    """What a layer paid attention to for a batch.

    Attributes:
        probabilities: ``(B, heads, N, M)``, how much each of N queries looks at each of M keys, rows sum to 1; of
            attention in n windows ``(B, n, heads, N, N)``.
        reach: which tokens those are.
    """

    probabilities: Tensor
    reach: Reach

    @property
    def heads(self) -> int:
        return self.probabilities.shape[-3]

    @property
    def grid(self) -> Grid:
        """Rows and columns of the layer's places."""
        assert self.reach.grid is not None, "a layer outside of a backbone is on no grid"
        return self.reach.grid

    @property
    def places(self) -> int:
        return self.grid[0] * self.grid[1]

    @property
    def prefix(self) -> int:
        """Number of tokens before the places."""
        return self.probabilities.shape[-1] - self.places if isinstance(self.reach, Full) else 0

    def matrix(self, head: int | None = None) -> Tensor:
        """The probabilities of one head, counted from 1, or their mean: ``(B, N, M)``, in windows ``(B, n, N, N)``.

        Raises :class:`SettingError` for a head that there is not.
        """
        if head is None:
            return self.probabilities.mean(dim=-3)
        if not 1 <= head <= self.heads:
            raise SettingError(f"there is no head {head}; this layer has heads 1 to {self.heads}.")
        return self.probabilities.select(-3, head - 1)


def attention_layers(model: nn.Module) -> dict[str, AttentionLayer]:
    """The attention layers of a model by name, in the order in which they run; none for a convolutional one.

    Of a `Network` those that its forward pass reads, which of an iGPT are the ones below its features.
    """
    layers = {name: module for name, module in model.named_modules() if isinstance(module, AttentionLayer)}
    if not isinstance(model, Network):
        return layers
    first = {name: next(iter(model.get_submodule(name).state_dict(prefix=f"{name}."))) for name in layers}
    return {name: layer for name, layer in layers.items() if model.reads(first[name])}


def record_attention(
    model: nn.Module, layers: Sequence[str] | None = None
) -> AbstractContextManager[dict[str, Recorded]]:
    """While this is open, keep what each attention layer pays attention to when the model runs::

        with record_attention(backbone) as recorded:
            backbone(images)
        recorded["blocks.0.attention"].probabilities  # (B, heads, N, N)

    The model runs as ever, fused kernels included, and nothing is stored in it: hooks compute the probabilities beside
    it, and go when the block is left, even by an exception. Only tokens are not merged meanwhile. N² numbers for every
    head and image are a lot: keep the batch small.

    Args:
        model: a backbone, or any module with attention layers, which then know of no grid but their own.
        layers: names of those to record, out of `attention_layers`; None for all.

    Yields:
        From the name of a layer to what it looked at, float32, detached, in the order in which the layers ran; of
        several passes the last one's.

    Raises:
        UnknownName: the model has no attention layer of such a name.
    """
    return _hooked(model, layers, _keep)


def attention_in_graph(
    model: nn.Module, layers: Sequence[str] | None = None
) -> AbstractContextManager[dict[str, Recorded]]:
    """As `record_attention`, but what the layers give is computed through the recorded probabilities.

    So gradients by them exist. The result differs from that of the fused kernels in rounding.
    """
    return _hooked(model, layers, _route)


Hook = Callable[..., Tensor | None]


@contextmanager
def _hooked(model: nn.Module, layers: Sequence[str] | None, hook: Hook) -> Iterator[dict[str, Recorded]]:
    known = attention_layers(model)
    recorded: dict[str, Recorded] = {}
    with ExitStack() as hooks:
        for name in known if layers is None else layers:
            if name not in known:
                raise UnknownName("attention layer", name, known)
            module = model.get_submodule(name)
            hooks.enter_context(module.register_forward_hook(partial(hook, recorded, name), with_kwargs=True))
        for module in model.modules():
            if isinstance(module, Backbone):
                if module.merge:
                    hooks.enter_context(_whole(module))
                hooks.enter_context(module.register_forward_hook(partial(_place, recorded)))
        yield recorded


@torch.no_grad()
def _keep(
    recorded: dict[str, Recorded], name: str, layer: Any, inputs: tuple[Any, ...], named: dict[str, Any], output: Tensor
) -> None:
    probabilities = layer.probabilities(*inputs, **named).float()
    recorded[name] = Recorded(probabilities, layer.reach(*inputs, **named))


def _route(
    recorded: dict[str, Recorded], name: str, layer: Any, inputs: tuple[Any, ...], named: dict[str, Any], output: Tensor
) -> Tensor:
    probabilities: Tensor = layer.probabilities(*inputs, **named)
    if not probabilities.requires_grad:
        probabilities.requires_grad_()
    recorded[name] = Recorded(probabilities, layer.reach(*inputs, **named))
    routed: Tensor = layer.attended(probabilities, *inputs, **named)
    return routed


@contextmanager
def _whole(backbone: Backbone) -> Iterator[None]:
    """Without token merging, so that rows and columns are the places of the image."""
    merge, backbone.merge = backbone.merge, 0
    try:
        yield
    finally:
        backbone.merge = merge


def _place(recorded: dict[str, Recorded], backbone: Backbone, inputs: tuple[Any, ...], features: Features) -> None:
    """Tell layers that see tokens alone on which grid these lie."""
    height, width = features.grid
    for name, layer in recorded.items():
        if isinstance(layer.reach, Full) and layer.reach.grid is None:
            recorded[name] = replace(layer, reach=replace(layer.reach, grid=(height, width)))
