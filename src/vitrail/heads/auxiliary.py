"""A linear classifier, and auxiliary ones that help in training (Szegedy et al. 2015, GoogLeNet, section 5)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from vitrail.heads.linear import LinearHead
from vitrail.nn.features import Features

WEIGHT = 0.3  # of each auxiliary classifier's loss
SIDE = 4  # of the grid that an auxiliary classifier averages its map to


class AuxiliaryHead(LinearHead):
    """`Features` to logits ``(B, K)`` from ``pooled``; in training also from each map of ``auxiliary``.

    A deep network's early layers get a short way to the loss. Predictions come from ``pooled`` alone.

    Args:
        width: D, the backbone's `width`.
        auxiliary_widths: channels of each of the backbone's auxiliary maps.
        classes: K.
    """

    def __init__(self, width: int, auxiliary_widths: Sequence[int], classes: int) -> None:
        super().__init__(width, classes)
        self.auxiliary = nn.ModuleList(AuxiliaryClassifier(each, classes) for each in auxiliary_widths)

    def outputs(self, features: Features) -> list[tuple[Tensor, float]]:
        """What the training loss is taken of: logits ``(B, K)``, each with its weight; the main ones first."""
        pairs = zip(self.auxiliary, features.auxiliary, strict=True)
        return [(self(features), 1.0), *((classifier(map_), WEIGHT) for classifier, map_ in pairs)]


class AuxiliaryClassifier(nn.Module):
    """A map ``(B, C, H, W)`` to logits ``(B, K)``: 4x4 averages, 128 channels of them, 1,024 hidden units.

    The paper averages 5x5 places at a stride of 3, which is 4x4 from a map of 14x14; as torchvision, this takes maps of
    any size and has a batch norm.
    """

    def __init__(self, inputs: int, classes: int) -> None:
        super().__init__()
        conv = nn.Conv2d(inputs, 128, 1, bias=False)
        self.conv = nn.Sequential(OrderedDict(conv=conv, norm=nn.BatchNorm2d(128, eps=1e-3)))
        self.hidden = nn.Linear(128 * SIDE * SIDE, 1024)
        self.dropout = nn.Dropout(0.7)
        self.linear = nn.Linear(1024, classes)
        for layer in (conv, self.hidden, self.linear):
            nn.init.trunc_normal_(layer.weight, std=0.01)
        for layer in (self.hidden, self.linear):
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv(F.adaptive_avg_pool2d(x, SIDE)))
        return self.linear(self.dropout(F.relu(self.hidden(x.flatten(1)))))
