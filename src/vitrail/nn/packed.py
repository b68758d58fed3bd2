"""Linear maps as a CPU's own library multiplies them: weights laid out once, the activation in the same pass."""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ROWS = 16  # below, the libraries have other kernels, which sum in another order


class PackedLinear(nn.Module):
    """`nn.Linear` for inference in bfloat16 on a CPU, ``(…, inputs)`` of any format to ``(…, outputs)`` bfloat16.

    oneDNN cuts a matrix into tiles before it multiplies with it. Here that is done once, not for every batch. Few rows
    are filled up with zeros, so that a row's result does not depend on how many others there are.

    Args:
        linear: the map; its weight is copied.
        gelu: the ``approximate`` of a GELU that follows, computed before the result is rounded; None for none.
    """

    def __init__(self, linear: nn.Linear, gelu: str | None = None) -> None:
        super().__init__()
        self.inputs, self.outputs = linear.in_features, linear.out_features
        weight = linear.weight.detach().bfloat16()
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight)
        self.bias = None if linear.bias is None else linear.bias.detach().bfloat16()
        self.activation = ("none", "") if gelu is None else ("gelu", gelu)

    def forward(self, x: Tensor) -> Tensor:
        rows = x.shape[:-1].numel()
        flat = x.reshape(rows, self.inputs).to(torch.bfloat16)
        name, kind = self.activation
        y: Tensor = torch.ops.mkldnn._linear_pointwise(filled_up(flat), self.weight, self.bias, name, [], kind)
        return y[:rows].view(*x.shape[:-1], self.outputs)

    def extra_repr(self) -> str:
        return f"{self.inputs}, {self.outputs}, activation={self.activation[0]}"


def filled_up(rows: Tensor) -> Tensor:
    """``(n, inputs)`` with rows of zeros behind them if there are fewer than `ROWS`."""
    return rows if len(rows) >= ROWS else F.pad(rows, (0, 0, 0, ROWS - len(rows)))


@cache
def can_pack() -> bool:
    """Whether this PyTorch has the operators, which its compiler uses and which it does not promise to keep."""
    try:
        packed = PackedLinear(nn.Linear(32, 32), "tanh")
        return bool(packed(torch.ones(2, 32)).isfinite().all())
    except (AttributeError, RuntimeError, NotImplementedError):
        return False
