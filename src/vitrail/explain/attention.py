"""Where a transformer looks: its attention, recorded beside the forward pass, and what can be computed of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitrail.errors import UnknownName
from vitrail.nn.attention import Attention
from vitrail.nn.pool import AttentionPool

Pool = Literal["class", "mean", "map"]  # how the vector of an image comes from its tokens, as in the config of ViT


def attention_layers(model: nn.Module) -> dict[str, Attention | AttentionPool]:
    """The attention layers of a model by name, in the order in which it was built; none for a convolutional one."""
    return {name: module for name, module in model.named_modules() if isinstance(module, Attention | AttentionPool)}


@contextmanager
def record_attention(model: nn.Module, layers: Sequence[str] | None = None) -> Iterator[dict[str, Tensor]]:
    """While this is open, keep what each attention layer pays attention to when the model runs::

        with record_attention(model) as recorded:
            model(images)
        recorded["blocks.0.attention"]  # (B, heads, N, N)

    The model runs as ever, fused kernels included, and nothing is stored in it: hooks compute the probabilities beside
    it, and go when the block is left, even by an exception. N² numbers for every head and image are a lot: keep the
    batch small.

    Args:
        model: any module with attention layers.
        layers: names of those to record, out of `attention_layers`; None for all.

    Yields:
        From the name of a layer to its probabilities ``(B, heads, N, N)``, float32, detached, in the order in which the
        layers ran; of several passes the last one's. An `AttentionPool` has one query: ``(B, heads, 1, N)``.

    Raises:
        UnknownName: the model has no attention layer of such a name.
    """
    known = attention_layers(model)
    recorded: dict[str, Tensor] = {}
    with ExitStack() as hooks:
        for name in known if layers is None else layers:
            if name not in known:
                raise UnknownName("attention layer", name, known)
            hooks.enter_context(known[name].register_forward_hook(partial(_keep, recorded, name), with_kwargs=True))
        yield recorded


@torch.no_grad()
def _keep(
    recorded: dict[str, Tensor],
    name: str,
    layer: Attention | AttentionPool,
    inputs: tuple[Any, ...],
    named_inputs: dict[str, Any],
    output: Tensor,
) -> None:
    recorded[name] = layer.probabilities(*inputs, **named_inputs).float()


def attention_map(probabilities: Tensor, prefix: int, grid: tuple[int, int], pool: Pool) -> Tensor:
    """How much the vector of each image looks at each patch in one layer, the mean over the heads.

    Args:
        probabilities: ``(B, heads, P + N, P + N)`` of the layer; with ``pool="map"`` those of the attention pool,
            which looks at the patches alone, ``(B, heads, 1, N)``.
        prefix: P, the number of tokens before the patches.
        grid: rows h and columns w of the N patches.
        pool: ``class`` for the look of the class token (the first), ``mean`` for the mean look of all patches, ``map``
            for that of the probe.

    Returns:
        ``(B, h, w)``, the shares of the patches, which sum to 1: what falls on other tokens is left out.
    """
    look = probabilities.mean(dim=1)
    if pool == "map":
        look = F.pad(look, (prefix, 0))
    return _over_patches(look[:, prefix:].mean(dim=1) if pool == "mean" else look[:, 0], prefix, grid)


def attention_rollout(layers: Sequence[Tensor], prefix: int, grid: tuple[int, int], pool: Pool) -> Tensor:
    """How much of each patch arrives in the vector of each image through all layers (Abnar and Zuidema 2020, eq. 1).

    Each layer hands on half of what it was given, which is its residual connection, and half of what its heads look at
    on average: 0.5 A + 0.5 I, whose rows sum to 1 as those of A do. These are multiplied up.

    Args:
        layers: ``(B, heads, P + N, P + N)`` of each layer, the first one first; with ``pool="map"`` those of the
            attention pool, ``(B, heads, 1, N)``, at the end.
        prefix, grid, pool: as for `attention_map`.

    Returns:
        ``(B, h, w)``, the shares of the patches, which sum to 1.
    """
    *blocks, last = layers
    if pool == "map":
        arriving = F.pad(last.mean(dim=1), (prefix, 0))  # no residual connection leads around the pool
    else:
        blocks.append(last)
        arriving = last.new_zeros(len(last), 1, last.shape[-1])
        read = slice(0, 1) if pool == "class" else slice(prefix, None)
        arriving[..., read] = 1 / arriving[..., read].shape[-1]
    for layer in reversed(blocks):  # from the vector back to the image: a row times a matrix, not matrix times matrix
        arriving = 0.5 * (arriving @ layer.mean(dim=1) + arriving)
    return _over_patches(arriving[:, 0], prefix, grid)


def mean_attention_distance(layers: Sequence[Tensor], prefix: int, grid: tuple[int, int], patch_size: int) -> Tensor:
    """How far each head looks: the mean distance of patches, weighted by attention (ViT, figure 7 and appendix D.7).

    Args:
        layers: ``(B, heads, P + N, P + N)`` of each layer.
        prefix, grid: as for `attention_map`; only attention from patches to patches counts.
        patch_size: side of a patch in pixels.

    Returns:
        ``(layers, heads)`` in pixels between the centres of patches, the mean over queries and images.
    """
    places = torch.cartesian_prod(*(torch.arange(side, device=layers[0].device) * float(patch_size) for side in grid))
    distances = torch.linalg.vector_norm(places[:, None] - places, dim=-1)
    means = []
    for probabilities in layers:
        among_patches = probabilities[..., prefix:, prefix:]
        weighted = (among_patches * distances).sum(dim=-1) / among_patches.sum(dim=-1)
        means.append(weighted.mean(dim=(0, 2)))
    return torch.stack(means)


def _over_patches(look: Tensor, prefix: int, grid: tuple[int, int]) -> Tensor:
    """``(B, P + N)`` to ``(B, h, w)``: the prefix is cut off, and the rest scaled to the sum 1."""
    patches = look[:, prefix:]
    return (patches / patches.sum(dim=1, keepdim=True)).unflatten(1, grid)
