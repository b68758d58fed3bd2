"""Next pixel and masked pixel: a network learns images by saying what colour a pixel has (Chen et al. 2020, iGPT)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitrail import models
from vitrail.data.augment import Augment
from vitrail.data.palette import fit_palette
from vitrail.data.preprocess import Preprocess
from vitrail.data.rng import uniform
from vitrail.data.sample import Batch
from vitrail.data.source import Source
from vitrail.errors import SettingError
from vitrail.models.igpt import IGPT
from vitrail.models.igpt.keys import MASKED_PIXEL, NEXT_PIXEL
from vitrail.models.layout import Layout
from vitrail.nn.backbone import Backbone
from vitrail.objectives.objective import ImageObjective


class Pixels(ImageObjective):
    """An iGPT with a linear map from its tokens to the logits of the palette's K colours, which begins at zero.

    Raises :class:`SettingError` for a backbone that is no iGPT.
    """

    beta2 = 0.95  # the paper's, section 3.4
    augment = Augment(flip=0.5)  # a crop would blur or sharpen what is to be told
    families: ClassVar[tuple[str, ...]] = ("igpt",)
    backbone: IGPT

    def __init__(self, model: str, backbone: Backbone, preprocess: Preprocess, options: Any) -> None:
        if not isinstance(backbone, IGPT):
            raise SettingError(f"{self.name} is learned by reading pixels, as an iGPT does; {model} is none.")
        super().__init__(model, backbone, preprocess, options)
        self.output = nn.Linear(backbone.config.width, backbone.config.colours, bias=False)
        nn.init.zeros_(self.output.weight)

    @classmethod
    def usual_model(cls, side: int) -> str:
        return "igpt-nano"

    @classmethod
    def usual_preprocess(cls, preprocess: Preprocess) -> Preprocess:
        half = (0.5,) * preprocess.channels
        return replace(preprocess, mean=half, std=half)

    def fitted_to(self, source: Source, seed: int) -> Pixels:
        """The same with the palette of the images to learn from; of fewer colours, where these have fewer."""
        config = self.backbone.config
        palette = torch.from_numpy(fit_palette(source, self.preprocess, config.colours, seed)) * 2 - 1
        learner = self
        if len(palette) < config.colours:
            backbone = models.create(self.model, **asdict(replace(config, colours=len(palette))))
            learner = type(self)(self.model, backbone, self.preprocess, self.options)
        learner.backbone.palette.copy_(palette)
        return learner

    def logits(self, numbers: Tensor, hidden: Tensor | None = None) -> Tensor:
        """Colours ``(B, N)`` to what the model says of each pixel, ``(B, N, K)``."""
        return self.output(self.backbone.encode(self.backbone.embed(numbers, hidden)))

    def errors(self, numbers: Tensor, hidden: Tensor | None = None) -> Tensor:
        """The cross-entropy of each pixel in nats, ``(B, N)``."""
        return F.cross_entropy(self.logits(numbers, hidden).float().transpose(1, 2), numbers, reduction="none")


class NextPixel(Pixels):
    """Which colour comes next, of all those before it, row by row (equation 1).

    The ``loss`` is the mean cross-entropy in nats a pixel. Raises :class:`SettingError` for a model that looks ahead.
    """

    name = "next-pixel"
    usual_config: ClassVar[dict[str, Any]] = {"causal": True, "shift": True}
    layouts: ClassVar[Mapping[str, Layout]] = NEXT_PIXEL

    @dataclass(frozen=True)
    class Options:
        """There is nothing to be set."""

    def __init__(self, model: str, backbone: Backbone, preprocess: Preprocess, options: Any = None) -> None:
        super().__init__(model, backbone, preprocess, options or self.Options())
        if not (self.backbone.config.causal and self.backbone.config.shift):
            raise SettingError("the next pixel is no riddle to a model that sees it; take one with causal and shift.")

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        return {"loss": self.errors(self.backbone.numbers(self.normalized(batch.images))).mean()}

    @torch.no_grad()
    def paint(
        self, given: Tensor, choose: Callable[[Tensor], Tensor], advance: Callable[[int], None] = lambda done: None
    ) -> Tensor:
        """Go on with images of which the first n colours are given, ``(B, n)`` int64, to whole ones ``(B, N)``.

        ``choose`` takes the next colour of each, ``(B,)``, by its logits ``(B, K)``; ``advance`` is told how many new
        ones there are.
        """
        backbone, numbers, cache = self.backbone, given, self.backbone.new_cache()
        first, last = given.shape[1], backbone.positions.shape[1]
        tokens = torch.cat([backbone.start(len(given)), backbone.colour_embedding(given)], dim=1)
        tokens = tokens[:, :last] + backbone.positions[:, : first + 1]
        for place in range(first, last):
            colours = choose(self.output(backbone.encode(tokens, cache)[:, -1]))
            numbers = torch.cat([numbers, colours.unsqueeze(1)], dim=1)
            tokens = backbone.colour_embedding(colours).unsqueeze(1) + backbone.positions[:, place + 1 : place + 2]
            advance(place + 1 - first)
        return numbers


class MaskedPixel(Pixels):
    """Which colours are hidden, of all those that are seen: the paper's "BERT" objective (equation 2).

    The ``loss`` is the cross-entropy in nats a hidden pixel, the mean over an image's and then over the images. Raises
    :class:`SettingError` for a model that cannot look ahead, or a share that hides none or all.
    """

    name = "masked-pixel"
    usual_config: ClassVar[dict[str, Any]] = {"causal": False, "shift": False}
    layouts: ClassVar[Mapping[str, Layout]] = MASKED_PIXEL

    @dataclass(frozen=True)
    class Options:
        """What can be set.

        Attributes:
            mask_ratio: the chance of each pixel to be hidden.
        """

        mask_ratio: float = 0.15

    def __init__(self, model: str, backbone: Backbone, preprocess: Preprocess, options: Any = None) -> None:
        super().__init__(model, backbone, preprocess, options or self.Options())
        if self.backbone.config.causal:
            raise SettingError(f"hidden pixels are told from those on all sides; take {model} with causal=false.")
        if not 0 < self.options.mask_ratio < 1:
            raise SettingError(f"the mask ratio must be above 0 and below 1, not {self.options.mask_ratio}.")

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        assert batch.draws is not None, "masks are drawn from a batch's draws"
        numbers = self.backbone.numbers(self.normalized(batch.images))
        hidden = uniform(batch.draws, numbers.shape[1]) < self.options.mask_ratio
        errors = self.errors(numbers, hidden) * hidden
        return {"loss": (errors.sum(dim=1) / hidden.sum(dim=1).clamp(min=1)).mean()}
