"""The linear classifier: one score a class from the pooled vector."""

from __future__ import annotations

from torch import Tensor, nn

from vitrail.nn.features import Features


class LinearHead(nn.Module):
    """`Features` of a backbone to logits ``(B, K)``: ``pooled (B, D)`` times a matrix, plus a bias.

    Begins with small weights (truncated normal, 0.02) and zero biases: every class about equally likely, and yet,
    unlike with zeros, a gradient for the backbone in the first step.

    Args:
        width: D, the backbone's `width`.
        classes: K.
    """

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, classes)
        nn.init.trunc_normal_(self.linear.weight, std=0.02)
        nn.init.zeros_(self.linear.bias)

    def forward(self, features: Features) -> Tensor:
        return self.linear(features.pooled)

    def outputs(self, features: Features) -> list[tuple[Tensor, float]]:
        """What the training loss is taken of: logits ``(B, K)``, each with its weight."""
        return [(self(features), 1.0)]
