"""The position-wise feed-forward network (Vaswani et al. 2017, section 3.3), usually with GELU."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from vitrail.nn.gelu_linear import gelu_linear

Activation = Literal["gelu", "gelu_tanh", "quick_gelu", "relu"]


class QuickGELU(nn.Module):
    """x · σ(1.702 x), the coarser approximation of GELU (Hendrycks and Gimpel 2016) of iGPT and CLIP."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


ACTIVATIONS: dict[Activation, Callable[[], nn.Module]] = {
    "gelu": nn.GELU,
    "gelu_tanh": partial(nn.GELU, approximate="tanh"),  # what JAX means by GELU
    "quick_gelu": QuickGELU,
    "relu": nn.ReLU,
}


class Mlp(nn.Module):
    """Linear, activation, dropout, linear, dropout: ``(…, width)`` to ``(…, width)``; without biases in iGPT."""

    def __init__(
        self, width: int, hidden: int, *, activation: Activation = "gelu", dropout: float = 0.0, bias: bool = True
    ) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden, bias=bias)
        self.act = ACTIVATIONS[activation]()
        self.fc2 = nn.Linear(hidden, width, bias=bias)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.fc1(x)
        if self._keeps_less(hidden):
            return gelu_linear(hidden, self.fc2.weight, self.fc2.bias, self.act.approximate)  # type: ignore[arg-type]
        return self.drop(self.fc2(self.drop(self.act(hidden))))

    def _keeps_less(self, hidden: Tensor) -> bool:
        """Whether autograd may keep GELU's input alone: in training, with nothing between GELU and a plain matrix."""
        plain = type(self.act) is nn.GELU and type(self.fc2) is nn.Linear and self.drop.p == 0
        return plain and self.training and hidden.requires_grad and not torch.compiler.is_compiling()


def init_mlp(mlp: Mlp) -> None:
    """Xavier-uniform weights and biases of standard deviation 1e-6 (as vit_jax)."""
    for linear in (mlp.fc1, mlp.fc2):
        nn.init.xavier_uniform_(linear.weight)
        nn.init.normal_(linear.bias, std=1e-6)
