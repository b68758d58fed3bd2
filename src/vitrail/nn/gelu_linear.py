"""GELU and a linear map as one step of autograd, which keeps only GELU's input for the backward pass."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable


def gelu_linear(hidden: Tensor, weight: Tensor, bias: Tensor | None, approximate: str = "none") -> Tensor:
    """``F.linear(F.gelu(hidden), weight, bias)`` for ``hidden (…, inputs)``, with the same gradients.

    GELU keeps its input and the linear map its own, which are the largest tensors of a transformer's block. Here the
    second is computed again, which takes far less time than a matrix product. Computed in ``hidden``'s format.
    """
    cast = weight.to(hidden.dtype), None if bias is None else bias.to(hidden.dtype)
    return _GeluLinear.apply(hidden, *cast, approximate)


class _GeluLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, approximate: str) -> Tensor:
        ctx.save_for_backward(hidden, weight)
        ctx.approximate = approximate
        return F.linear(F.gelu(hidden, approximate=approximate), weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        hidden, weight = ctx.saved_tensors
        to_hidden = to_weight = to_bias = None
        rows = gradient.flatten(0, -2)
        if ctx.needs_input_grad[1]:
            activated = F.gelu(hidden, approximate=ctx.approximate).flatten(0, -2)
            to_weight = rows.T @ activated
        if ctx.needs_input_grad[2]:
            to_bias = rows.sum(dim=0)
        if ctx.needs_input_grad[0]:
            to_hidden = torch.ops.aten.gelu_backward(gradient @ weight, hidden, approximate=ctx.approximate)
        return to_hidden, to_weight, to_bias, None
