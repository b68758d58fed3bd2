"""What a network learns from without being told the answer: of images, of text."""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset

from vitrail import models
from vitrail.data.augment import Augment
from vitrail.data.loader import EvaluationBatches, FirstEpoch, TrainingBatches
from vitrail.data.mix import Mix
from vitrail.data.preprocess import Preprocess
from vitrail.data.sample import Batch
from vitrail.data.source import Source
from vitrail.data.text.batch import TextBatch
from vitrail.data.text.tokenizer import Tokenizer
from vitrail.data.text.windows import EndlessBatches, EvaluationWindows, TrainingWindows
from vitrail.errors import SettingError
from vitrail.models.layout import Layout
from vitrail.nn.backbone import Backbone, TextBackbone
from vitrail.nn.features import Features
from vitrail.tasks.learner import Learner

COMPARED = 64  # images of a batch whose views are compared on held-out data: with more it would be another figure


class Objective(Learner):
    """A learner whose figure is its own loss on data that were held back.

    Attributes:
        Options: a frozen dataclass of what can be set about it, all with defaults; the flag --options.
        options: as they were set.
        beta2: the decay of AdamW's second moment that its paper trains with.
        latest: whether the last weights are kept and not those with the lowest loss, which tells nothing.
    """

    score = "loss"
    lower_is_better = True
    Options: ClassVar[type]
    options: Any
    beta2: ClassVar[float] = 0.999
    latest: ClassVar[bool] = False

    def figures(self, losses: dict[str, float], batches: Any) -> dict[str, float]:
        """What is told of the mean ``losses`` over all of the ``batches``, at the end; they themselves, if no more."""
        return losses

    def after_step(self, done: float) -> None:
        """Called after each step of the optimizer with the share of all steps that is done."""


class ImageObjective(Objective):
    """What a backbone learns from images alone.

    Args:
        model: the backbone's name in the table of models.
        backbone: the backbone.
        preprocess: how an image becomes the backbone's input.
        options: the objective's own.

    Attributes:
        augment: what chance does to an image in training, unless a person sets something else.
        further: chance and preprocessing for each further view of the same image; most objectives need none.
        parts: whether a batch may be cut into parts to save memory, which changes what compares its images.
        usual_config: changes to the model that the objective asks for, unless a person sets something else.
        families: of models that it can be put around.
        layouts: key tables of others' files that hold all of it, as a family's are of its backbone.
    """

    backbone: Backbone
    augment: Augment = Augment(crop_scale=(0.2, 1.0), flip=0.5)
    parts: ClassVar[bool] = True
    usual_config: ClassVar[dict[str, Any]] = {}
    families: ClassVar[tuple[str, ...]] = ("vit",)
    layouts: ClassVar[Mapping[str, Layout]] = {}

    def __init__(self, model: str, backbone: Backbone, preprocess: Preprocess, options: Any) -> None:
        super().__init__()
        self.model = model
        self.backbone = backbone
        self.preprocess = preprocess
        self.options = options

    @classmethod
    def usual_model(cls, side: int) -> str:
        """The model for images of ``side`` pixels, where a person names none."""
        return "vit-micro" if side <= 64 else "vit-s16"

    @classmethod
    def usual_preprocess(cls, preprocess: Preprocess) -> Preprocess:
        """How images are prepared, where no trained weights say it."""
        return preprocess

    @property
    def further(self) -> tuple[tuple[Augment, Preprocess], ...]:
        return ()

    def training_batches(
        self, source: Source, classes: int, batch_size: int, seed: int, rank: int = 0, world: int = 1
    ) -> TrainingBatches:
        """Endless batches of all views of a source's images; grey ones, which may be characters, are not mirrored."""
        views = ((self.augment, self.preprocess), *self.further)
        if self.preprocess.channels == 1:
            views = tuple((replace(augment, flip=0.0), preprocess) for augment, preprocess in views)
        (augment, preprocess), *further = views
        return TrainingBatches(
            source, classes, preprocess, augment, Mix(), batch_size, tuple(further), seed=seed, rank=rank, world=world
        )

    def evaluation_batches(
        self, source: Source, classes: int, batch_size: int, rank: int = 0, world: int = 1
    ) -> EvaluationBatches | FirstEpoch:
        """Every image once; where views are compared, the same views each time, of `COMPARED` images at a time."""
        if not self.further:
            return EvaluationBatches(source, classes, self.preprocess, batch_size, rank, world)
        even = 2 * world if world > 1 else 1
        size = max(even, min(COMPARED, len(source)) // even * even)
        return FirstEpoch(self.training_batches(source, classes, size, 0, rank, world))

    def fitted_to(self, source: Source, seed: int) -> ImageObjective:
        """Called on random weights: itself, or one that begins as its paper, or the images to learn from, ask for."""
        return self

    def forward(self, images: Tensor) -> Features:
        """Images ``(B, C, H, W)``, uint8 or float and normalised, to the backbone's features."""
        return self.backbone(self.normalized(images))

    @abstractmethod
    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Scalars of a batch of uint8 images; chance comes from ``batch.draws`` where results must not depend on it."""

    def normalized(self, images: Tensor) -> Tensor:
        """Images ``(B, C, H, W)``, uint8 as a loader gives them or float and normalised, as the backbone reads them."""
        return self.preprocess.normalize(images) if images.dtype == torch.uint8 else images

    def to_json(self) -> dict[str, Any]:
        return {
            "objective": self.name,
            "model": self.model,
            "config": dataclasses.asdict(self.backbone.config),
            "options": dataclasses.asdict(self.options),
            "preprocess": self.preprocess.to_json(),
        }

    @classmethod
    def from_json(cls, description: dict[str, Any]) -> ImageObjective:
        backbone = models.create(description["model"], **description["config"])
        preprocess = Preprocess.from_json(description["preprocess"])
        return cls(description["model"], backbone, preprocess, _options(cls, description["options"]))


class TextObjective(Objective):
    """What a model of text learns from text alone.

    Args:
        model: the model's name in the table of models.
        backbone: the model.
        tokenizer: how text becomes its tokens.
        options: the objective's own.

    Attributes:
        special: tokens that a tokenizer needs beside those of the text, in the order of their ids.
        usual_model: the model where a person names none.
        next_command: what one does with such a run.
    """

    backbone: TextBackbone
    special: ClassVar[tuple[str, ...]] = ()
    usual_model: ClassVar[str]
    next_command: ClassVar[str] = "vitrail train TEXT --task text-classification --weights {run}"

    def __init__(self, model: str, backbone: TextBackbone, tokenizer: Tokenizer, options: Any) -> None:
        super().__init__()
        if (tokens := len(tokenizer)) > (known := backbone.config.vocabulary):
            raise SettingError(
                f"the tokenizer has {tokens:,} tokens and {model} a vocabulary of {known:,}; take the one that "
                "the model was trained with."
            )
        self.model = model
        self.backbone = backbone
        self.tokenizer = tokenizer
        self.options = options

    @property
    def window(self) -> int:
        """How many tokens of the corpus one row of a batch takes."""
        return self.backbone.config.context

    @abstractmethod
    def loss(self, batch: TextBatch) -> dict[str, Tensor]:
        """Scalars of a batch of rows of `window` tokens each, in nats a token; chance comes from ``batch.draws``."""

    def training_batches(
        self, documents: Sequence[NDArray], batch_size: int, seed: int, rank: int = 0, world: int = 1
    ) -> EndlessBatches:
        """Endless batches of a corpus, one array of token ids a document; the n-th is determined by (seed, n)."""
        return TrainingWindows(self.joined(documents), self.window, batch_size, seed, rank, world)

    def evaluation_batches(
        self, documents: Sequence[NDArray], batch_size: int, rank: int = 0, world: int = 1, most: int | None = None
    ) -> TorchDataset[TextBatch]:
        """Every token of a corpus once, but for a rest at its end; or ``most`` rows, evenly spread over it."""
        return EvaluationWindows(self.joined(documents), self.window, batch_size, rank, world, most)

    def joined(self, documents: Sequence[NDArray]) -> NDArray:
        """The documents in a row, with the token that ends a text between two of them, where the tokenizer has one."""
        return self.tokenizer.joined(documents)

    def to_json(self) -> dict[str, Any]:
        return {
            "objective": self.name,
            "model": self.model,
            "config": dataclasses.asdict(self.backbone.config),
            "options": dataclasses.asdict(self.options),
            "tokenizer": self.tokenizer.to_json(),
        }

    @classmethod
    def from_json(cls, description: dict[str, Any]) -> TextObjective:
        backbone = models.create_text(description["model"], **description["config"])
        tokenizer = Tokenizer.from_json(description["tokenizer"])
        return cls(description["model"], backbone, tokenizer, _options(cls, description["options"]))


def _options(kind: type[Objective], values: dict[str, Any]) -> Any:
    """The options as their dataclass has them; a list, as JSON has them, is a tuple."""
    return kind.Options(**{key: tuple(value) if isinstance(value, list) else value for key, value in values.items()})
