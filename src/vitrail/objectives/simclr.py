"""SimCLR (Chen et al., ICML 2020, arXiv:2002.05709): two views of an image attract, those of other images repel.

Each image is cropped and coloured twice by chance. A small MLP on the backbone's vector, thrown away later, maps every
view onto a sphere, where a view has to be nearer to its twin than to all other views of the batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitrail import models
from vitrail.data.augment import Augment
from vitrail.data.preprocess import Preprocess
from vitrail.data.sample import Batch
from vitrail.errors import SettingError
from vitrail.nn.backbone import Backbone
from vitrail.objectives.objective import ImageObjective
from vitrail.objectives.views import simclr_view
from vitrail.train import distributed


class SimCLR(ImageObjective):
    """Any backbone learns to tell the images of a batch apart, whatever view it gets of them.

    The ``loss`` is NT-Xent, in nats: the mean cross-entropy of each of the 2 B views with its twin among the other
    2 B - 1 (equation 1). Of several processes each compares its views with those of all. ``matched`` is the share of
    views whose twin is the nearest of them.

    Raises :class:`SettingError` for a temperature, a strength or a share that makes no sense.
    """

    name = "simclr"
    parts: ClassVar[bool] = False
    families: ClassVar[tuple[str, ...]] = tuple(models.FAMILIES)

    @dataclass(frozen=True)
    class Options:
        """What can be set.

        Attributes:
            temperature: by which similarities are divided; 0.1 for ImageNet and 0.5 for CIFAR in the paper.
            projection: units of the vectors that are compared.
            strength: of the changes of colour; 1 for ImageNet and 0.5 for CIFAR in the paper.
            smallest_view: the smallest share of the image that a view shows.
        """

        temperature: float = 0.5
        projection: int = 128
        strength: float = 0.5
        smallest_view: float = 0.08

    def __init__(self, model: str, backbone: Backbone, preprocess: Preprocess, options: Any = None) -> None:
        options = options or self.Options()
        if not 0 < options.temperature < float("inf"):
            raise SettingError(f"the temperature of SimCLR must be above 0, not {options.temperature}.")
        if options.projection < 1:
            raise SettingError(f"vectors are compared in at least 1 dimension, not {options.projection}.")
        super().__init__(model, backbone, preprocess, options)
        self.augment = simclr_view(options.smallest_view, options.strength, min(preprocess.size))
        self.head = nn.Sequential(
            nn.Linear(backbone.width, backbone.width), nn.ReLU(), nn.Linear(backbone.width, options.projection)
        )

    @property
    def further(self) -> tuple[tuple[Augment, Preprocess], ...]:
        """One, made as the first is."""
        return ((self.augment, self.preprocess),)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        (second,) = batch.views
        views = self.normalized(torch.cat([batch.images, second]))
        first, second = F.normalize(self.head(self.backbone(views).pooled).float(), dim=1).chunk(2)
        loss, matched = nt_xent(first, second, self.options.temperature)
        return {"loss": loss, "matched": matched}


def nt_xent(first: Tensor, second: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """The normalised temperature-scaled cross-entropy, and the share of views whose twin is the nearest.

    Args:
        first, second: vectors of length 1, ``(B, D)`` each, of two views of B images.

    Of several processes each has rows of its own; gradients flow to the others' vectors, too, so that the mean over
    processes is the loss of the whole batch.
    """
    mine = torch.cat([first, second])
    everything = torch.cat([distributed.gather_rows(first), distributed.gather_rows(second)])
    total, start = len(everything) // 2, len(first) * distributed.rank()
    own = start + torch.arange(len(first), device=first.device)
    itself, twin = torch.cat([own, own + total]), torch.cat([own + total, own])
    with torch.autocast(mine.device.type, enabled=False):  # a low temperature would magnify bfloat16's rounding
        similarity = mine @ everything.T / temperature
    similarity = similarity.scatter(1, itself.unsqueeze(1), float("-inf"))
    matched = (similarity.argmax(dim=1) == twin).float().mean()
    return F.cross_entropy(similarity, twin), matched
