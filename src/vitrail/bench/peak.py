"""How fast the machine multiplies matrices: of a model's own shapes, and at its best.

A model cannot be faster than its matrix products are by themselves. Convolutions are counted as the products that they
are of unfolded images; a library may compute them by a shorter way (Winograd), so that a network of convolutions can
come close to its limit, and beyond.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitrail.bench.timing import in_turns
from vitrail.nn.packed import PackedLinear, can_pack

SMALLEST, LONGEST = 512, 0.5  # side of the first square product; seconds after which none is larger


@dataclass(frozen=True)
class Product:
    """``(rows, inner)`` times ``(inner, columns)``."""

    rows: int
    inner: int
    columns: int

    @property
    def flops(self) -> int:
        """Floating-point operations; a multiplication with its addition counts as two."""
        return 2 * self.rows * self.inner * self.columns

    def backward(self) -> tuple[Product, Product]:
        """The products that give the gradients of the input and of the weight."""
        return Product(self.rows, self.columns, self.inner), Product(self.inner, self.rows, self.columns)


def products_of(module: nn.Module, run: Callable[[], object], *, training: bool = False) -> Counter[Product]:
    """The products of the linear maps and convolutions of ``module`` while ``run`` computes with it, and how often.

    Best on the meta device, where nothing is computed. Convolutions in groups, and the products of attention, are left
    out. With ``training`` those of the backward pass are added.
    """
    found: Counter[Product] = Counter()

    def note(layer: nn.Module, inputs: Any, output: Tensor) -> None:
        product = _product(layer, output)
        if product is not None:
            found.update((product, *product.backward()) if training else (product,))

    hooks = [layer.register_forward_hook(note) for layer in module.modules()]
    try:
        run()
    finally:
        for hook in hooks:
            hook.remove()
    return found


def rate_of(products: Counter[Product], dtype: torch.dtype, device: torch.device, seconds: float = 2.0) -> float:
    """Operations a second of all these products together, each as often as it occurs, in about ``seconds``.

    Each is measured for the share of the time that its operations have; at least five times.
    """
    total = sum(product.flops * count for product, count in products.items())
    needed = 0.0
    for product, count in products.items():
        share = product.flops * count / total
        needed += product.flops * count / product_rate(product, dtype, device, seconds * share)
    return total / needed


def best_rate(dtype: torch.dtype, device: torch.device) -> float:
    """Operations a second of the fastest square product: sides are doubled until one takes half a second."""
    best, side, took = 0.0, SMALLEST, 0.0
    while took < LONGEST / 8:  # of twice the side it takes eight times as long
        product = Product(side, side, side)
        rate = product_rate(product, dtype, device, seconds=0.2)
        best, side, took = max(best, rate), 2 * side, product.flops / rate
    return best


def product_rate(product: Product, dtype: torch.dtype, device: torch.device, seconds: float) -> float:
    """Operations a second of one product, the median of repeats, computed in the better of the ways there are."""
    x = torch.randn(product.rows, product.inner, device=device).to(dtype)
    layer = nn.Linear(product.inner, product.columns, bias=False, device=device)
    weight = layer.weight.detach().to(dtype)
    ways: dict[str, Callable[[], object]] = {"plain": lambda: F.linear(x, weight)}
    if device.type == "cpu" and dtype == torch.bfloat16 and can_pack():
        ways["packed"] = partial(PackedLinear(layer), x)
    with torch.inference_mode():
        times = in_turns(ways, seconds / len(ways), device)
    return product.flops / min(float(np.median(each)) for each in times.values())


def _product(layer: nn.Module, output: Tensor) -> Product | None:
    """What a layer multiplies; None for one that is no linear map."""
    if isinstance(layer, nn.Linear):
        return Product(output.shape[:-1].numel(), layer.in_features, layer.out_features)
    if isinstance(layer, nn.Conv2d) and layer.groups == 1:
        places = output.shape[0] * output.shape[2] * output.shape[3]
        return Product(places, layer.weight[0].numel(), layer.out_channels)
    return None
