"""A model made ready to answer: what its weights need once is not done again for every batch."""

from __future__ import annotations

from itertools import pairwise
from typing import TypeVar

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from vitrail.allocator import give_back_freed_memory
from vitrail.nn.mlp import Mlp
from vitrail.nn.packed import PackedLinear, can_pack

Module = TypeVar("Module", bound=nn.Module)


def ready(module: Module, dtype: torch.dtype) -> Module:
    """``module``, changed in place so that it answers fastest; it cannot be trained or saved any more.

    With bfloat16 the weights of linear maps and convolutions are converted, which autocast would else do for every
    batch. Batch norms become part of the convolutions before them (Jacob et al. 2018, section 3.2). On a CPU linear
    maps are packed, each with the GELU behind it. Norms, positions and sums stay float32. The module is then to be
    called within `train.precision.products_in`. With float32 nothing changes, to the last bit.
    """
    module.eval().requires_grad_(False)
    if dtype == torch.float32:
        return module
    for part in [part for part in module.modules() if part._modules]:  # no more: what is replaced is to be freed
        if isinstance(part, nn.Sequential):
            _fold_batch_norms(part)
        for name, layer in list(part.named_children()):
            if type(layer) in (nn.Linear, nn.Conv2d):  # not what computes something else with its weight
                setattr(part, name, _converted(part, name, layer, dtype))
    give_back_freed_memory()
    return module


def _fold_batch_norms(layers: nn.Sequential) -> None:
    """A convolution with a batch norm right behind it is one convolution, with other weights."""
    names = list(layers._modules)
    for name, behind in pairwise(names):
        convolution, norm = getattr(layers, name), getattr(layers, behind)
        if type(convolution) is nn.Conv2d and isinstance(norm, nn.BatchNorm2d):
            setattr(layers, name, fuse_conv_bn_eval(convolution, norm))
            setattr(layers, behind, nn.Identity())


def _converted(parent: nn.Module, name: str, layer: nn.Module, dtype: torch.dtype) -> nn.Module:
    weight = layer.weight
    assert isinstance(weight, nn.Parameter)
    if isinstance(layer, nn.Linear) and weight.device.type == "cpu" and dtype == torch.bfloat16 and can_pack():
        if isinstance(parent, Mlp) and name == "fc1" and isinstance(parent.act, nn.GELU):
            gelu, parent.act = parent.act.approximate, nn.Identity()
            return PackedLinear(layer, gelu)
        return PackedLinear(layer)
    layer.weight = nn.Parameter(weight.to(dtype), requires_grad=False)  # a new one, for it may be an embedding's, too
    return layer
