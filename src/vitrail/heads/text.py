"""What tasks of text put on a model: outputs from the pooled vector, or from each token."""

from __future__ import annotations

from torch import Tensor, nn

from vitrail.nn.backbone import TextBackbone
from vitrail.nn.features import Features

DROPOUT = 0.1  # of what a head reads, in training (Devlin et al. 2019, section A.3)


class PooledHead(nn.Module):
    """`Features` to logits ``(B, K)`` from ``pooled``.

    BERT's pooled vector comes from a layer with tanh. A model that leaves that layer out (RoBERTa) gets it here.

    Args:
        backbone: the model.
        classes: K.
    """

    def __init__(self, backbone: TextBackbone, classes: int) -> None:
        super().__init__()
        bare = getattr(backbone.config, "pooler", True) is False
        self.hidden = nn.Linear(backbone.width, backbone.width) if bare else None
        self.linear = nn.Linear(backbone.width, classes)
        self.drop = nn.Dropout(DROPOUT)
        _initialise(self)

    def forward(self, features: Features) -> Tensor:
        x = features.pooled
        if self.hidden is not None:
            x = self.hidden(self.drop(x)).tanh()
        return self.linear(self.drop(x))


class TokenHead(nn.Module):
    """`Features` to ``outputs`` numbers a token, ``(B, T, outputs)``.

    Args:
        width: D, the size of a token.
        outputs: how many.
        dropout: rate in training.
    """

    def __init__(self, width: int, outputs: int, dropout: float = DROPOUT) -> None:
        super().__init__()
        self.linear = nn.Linear(width, outputs)
        self.drop = nn.Dropout(dropout)
        _initialise(self)

    def forward(self, features: Features) -> Tensor:
        return self.linear(self.drop(features.tokens[:, features.prefix :]))


def _initialise(head: nn.Module) -> None:
    for module in head.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.02)
            nn.init.zeros_(module.bias)
