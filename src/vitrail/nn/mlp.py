"""The position-wise feed-forward network (Vaswani et al. 2017, section 3.3), usually with GELU."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

from torch import Tensor, nn

Activation = Literal["gelu", "gelu_tanh", "relu"]

ACTIVATIONS: dict[Activation, Callable[[], nn.Module]] = {
    "gelu": nn.GELU,
    "gelu_tanh": partial(nn.GELU, approximate="tanh"),  # what JAX means by GELU
    "relu": nn.ReLU,
}


class Mlp(nn.Module):
    """Linear, activation, dropout, linear, dropout: ``(…, width)`` to ``(…, width)``."""

    def __init__(self, width: int, hidden: int, *, activation: Activation = "gelu", dropout: float = 0.0) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.act = ACTIVATIONS[activation]()
        self.fc2 = nn.Linear(hidden, width)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(self.fc2(self.drop(self.act(self.fc1(x)))))


def init_mlp(mlp: Mlp) -> None:
    """Xavier-uniform weights and biases of standard deviation 1e-6 (as vit_jax)."""
    for linear in (mlp.fc1, mlp.fc2):
        nn.init.xavier_uniform_(linear.weight)
        nn.init.normal_(linear.bias, std=1e-6)
