"""The two classifiers of a distilled DeiT: one learns the labels, the other what a teacher says."""

from __future__ import annotations

from torch import Tensor, nn

from vitrail.nn.features import Features


class DistilledHead(nn.Module):
    """`Features` whose first two tokens are the class and the distillation token, to logits ``(B, K)``.

    Each token has a linear classifier, and the answer is the mean of both (Touvron et al. 2021, section 4). They begin
    as a `LinearHead` does.

    Args:
        width: D, the size of a token.
        classes: K.
    """

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, classes)
        self.distillation = nn.Linear(width, classes)
        for linear in (self.linear, self.distillation):
            nn.init.trunc_normal_(linear.weight, std=0.02)
            nn.init.zeros_(linear.bias)

    def forward(self, features: Features) -> Tensor:
        of_class, of_distillation = self.both(features)
        return (of_class + of_distillation) / 2

    def both(self, features: Features) -> tuple[Tensor, Tensor]:
        """The logits ``(B, K)`` of the class token and of the distillation token."""
        return self.linear(features.tokens[:, 0]), self.distillation(features.tokens[:, 1])

    def outputs(self, features: Features) -> list[tuple[Tensor, float]]:
        """What the loss is taken of without a teacher: the logits of both, each with half of the weight."""
        return [(logits, 0.5) for logits in self.both(features)]
