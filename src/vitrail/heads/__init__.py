"""Decoders that ride on any backbone's `Features`."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from vitrail.heads.auxiliary import AuxiliaryHead
from vitrail.heads.distilled import DistilledHead
from vitrail.heads.linear import LinearHead
from vitrail.nn.backbone import Backbone

# Backbone and number of classes to the classifier that the backbone's paper uses; `Backbone.classifier` names it.
# Each has ``forward(features) -> logits (B, K)`` and ``outputs(features)``, what the training loss is taken of.
CLASSIFIERS: dict[str, Callable[[Backbone, int], nn.Module]] = {
    "auxiliary": lambda backbone, classes: AuxiliaryHead(backbone.width, backbone.auxiliary_widths, classes),
    "distilled": lambda backbone, classes: DistilledHead(backbone.width, classes),
    "linear": lambda backbone, classes: LinearHead(backbone.width, classes),
}
