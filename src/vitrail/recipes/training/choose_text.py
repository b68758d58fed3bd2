"""What to train on text with where a person has left it open, and the task that this makes."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vitrail import models
from vitrail.data.rng import torch_seed
from vitrail.data.text.examples import TextData
from vitrail.data.text.labelled import Columns
from vitrail.data.text.tokenizer import Tokenizer
from vitrail.data.text.tokenizers import find_tokenizer
from vitrail.errors import CheckpointError, SettingError, UnknownName
from vitrail.objectives import LEARNED_BY
from vitrail.recipes.adapt import adapt, refuse_frozen_noise
from vitrail.recipes.config import config_changes
from vitrail.recipes.training.settings import Train
from vitrail.tasks import TASKS, TEXT_TASKS, Answering, TextClassification, TextTask
from vitrail.tasks.classification import class_weights
from vitrail.weights import text
from vitrail.weights.files import NoNetwork
from vitrail.weights.published import recommended
from vitrail.weights.rename import compare
from vitrail.weights.text import PretrainedText

USUAL, SMALL = "bert-base", "bert-nano"  # models where a person names none: with published weights, without
BATCH_SIZE = 32  # Devlin et al. 2019, section A.3

# Flags that say nothing to a model of text, and those that say nothing to one of images.
OF_IMAGES = (
    *("recipe", "teacher", "distill", "image_size", "augment", "flip", "mixup", "cutmix", "format", "image_column"),
    *("max_unreadable", "share", "workers", "cache"),
)
OF_TEXT = ("text_column", "pair_column", "length", "tokenizer", "vocabulary")


@dataclass(frozen=True)
class TextChoice:
    """Every setting that depends on the data, resolved; ``reason`` says in a sentence why.

    ``changes`` are those to the model's published config, ``weights`` a reference or "none".
    """

    model: str
    changes: dict[str, Any]
    weights: str
    length: int
    epochs: int
    batch_size: int
    learning_rate: float
    layer_decay: float
    warmup_epochs: float
    reason: str


def kind_of(settings: Train) -> type[TextTask[Any]]:
    """The task that is asked for."""
    return TEXT_TASKS[settings.task]


def check(settings: Train) -> None:
    """Raises :class:`UnknownName` for a task that is none, :class:`SettingError` for flags that are for others."""
    if settings.task not in TASKS:
        raise UnknownName("task", settings.task, TASKS)
    is_text = settings.task in TEXT_TASKS
    usual, foreign = type(settings)(), OF_IMAGES if is_text else OF_TEXT
    if given := [name for name in foreign if getattr(settings, name) != getattr(usual, name)]:
        flag = f"--{given[0].replace('_', '-')}"
        if is_text:
            raise SettingError(f"{flag} is for images, and --task {settings.task} is for text; leave it out.")
        raise SettingError(f"{flag} is for text; leave it out, or name a --task: {', '.join(TEXT_TASKS)}.")
    if settings.balance != "none" and is_text and not issubclass(kind_of(settings), TextClassification):
        raise SettingError(f"--balance is for one class a text; --task {settings.task} has none: leave it out.")


def columns(settings: Any) -> Columns:
    """The columns of a table, as the settings of a recipe name them."""
    return Columns(settings.text_column, settings.pair_column, settings.label_column)


def find_pretrained(settings: Train) -> PretrainedText | None:
    """What training starts from; None for random weights. Fetches published weights."""
    name = reference(settings)
    if name == "none":
        return None
    named = settings.model if settings.layout is not None else None
    changes = config_changes(named, settings.config) if named is not None and named != "auto" else {}
    try:
        found = text.load_backbone(
            name, layout=settings.layout, model=named, config=changes, tokenizer=settings.tokenizer
        )
    except NoNetwork as error:
        if settings.weights != "auto":
            raise
        raise CheckpointError(f"{str(error).removesuffix('.')}, or from random weights with --weights none.") from error
    if settings.model not in ("auto", found.model, models.family(found.model)):
        raise SettingError(f"--weights {name} is a {found.model}, not a {settings.model}; leave out --model.")
    return found


def reference(settings: Train) -> str:
    """Which weights training starts from: those that were named, or the published ones of the model; or "none"."""
    if settings.weights != "auto":
        return settings.weights
    published = recommended(USUAL if settings.model == "auto" else settings.model)
    return published.reference if published else "none"


def choose(settings: Train, texts: int, pretrained: PretrainedText | None) -> TextChoice:
    """Fill in what was left open. Raises :class:`UnknownName` or :class:`SettingError` for what cannot be."""
    if pretrained is None:
        model = settings.model if settings.model != "auto" else SMALL
        refuse_images(model)
        changes = {} if settings.length is None else {"context": settings.length}
        changes |= config_changes(model, settings.config)
        width, context, decay, weights = 0, models.changed(model, **changes).context, 1.0, "none"
    else:
        model, changes = pretrained.model, asdict(pretrained.backbone.config)
        changes |= config_changes(model, settings.config)
        width, context, decay = pretrained.backbone.width, changes["context"], pretrained.backbone.layer_decay
        weights = reference(settings)
    changes |= without_unread(model, kind_of(settings))
    refuse_frozen_noise(settings.adapt, settings.freeze, model, weights)
    full = settings.adapt == "full"
    epochs = settings.epochs or epochs_for(texts, fine_tuning=pretrained is not None)
    length = settings.length or context
    batch_size = settings.batch_size or min(BATCH_SIZE, max(2, texts // 4 * 2))
    return TextChoice(
        model=model,
        changes=changes,
        weights=weights,
        length=length,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=settings.learning_rate or (rate_for(width) if width and full else 1e-3),
        layer_decay=settings.layer_decay or (decay if full else 1.0),
        warmup_epochs=epochs / 10 if settings.warmup_epochs is None else settings.warmup_epochs,
        reason=f"{texts:,} training texts: {settings.task} with {model} on at most {length} tokens for {epochs} "
        f"epoch{'s' * (epochs > 1)} in batches of {batch_size}, from "
        f"{'random weights' if weights == 'none' else weights}",
    )


def without_unread(model: str, kind: type[TextTask[Any]]) -> dict[str, Any]:
    """Changes to a model's config that leave out the parts which a task does not read, and so could not train."""
    known = models.members(model).config.__dataclass_fields__
    unread = {"decoder_depth": 0} | ({} if kind.pools else {"pooler": False})
    return {name: value for name, value in unread.items() if name in known}


def refuse_images(model: str) -> None:
    """Raises :class:`SettingError` for a model of images, :class:`UnknownName` for none."""
    if models.family(model) not in models.TEXT_FAMILIES:
        raise SettingError(f"{model} is a model of images, not of text; there are: {', '.join(models.text_names())}.")


def rate_for(width: int) -> float:
    """The peak learning rate of trained weights: 3e-5 for a BERT-base, as in its paper, and more for smaller ones."""
    return 3e-5 * (768 / width) ** 1.5


def epochs_for(texts: int, *, fine_tuning: bool) -> int:
    """BERT's three where there are many texts to fine-tune on; more of few, or of a model that knows nothing yet."""
    return min(10, max(3, round(20_000 / texts))) if fine_tuning else min(30, max(5, round(100_000 / texts)))


def find_tokenizer_for(settings: Train, data: TextData[Any], choice: TextChoice) -> Tokenizer:
    """The tokenizer of a model with random weights: learned from the training texts, or a file's."""
    special = LEARNED_BY[models.family(choice.model)].special
    texts = [each for example in data.splits["train"] for each in example.texts]
    return find_tokenizer(settings.tokenizer or "words", texts, settings.vocabulary, special)


def build(
    settings: Train,
    data: TextData[Any],
    choice: TextChoice,
    tokenizer: Tokenizer,
    pretrained: PretrainedText | None = None,
) -> TextTask[Any]:
    """Model and head with the weights that training starts from, and the gradients that it needs.

    Without ``pretrained`` the weights are random, as they may be where a saved state is about to replace them. Raises
    :class:`SettingError` for trained weights that do not fit a changed model.
    """
    torch.manual_seed(torch_seed(settings.seed, "init"))
    backbone = models.create_text(choice.model, **{"vocabulary": len(tokenizer), **choice.changes})
    if pretrained is not None:
        unread = ("decoder.",) if kind_of(settings).pools else ("decoder.", "pooler.")
        weights = pretrained.backbone.state_dict()
        weights = {name: value for name, value in weights.items() if not name.startswith(unread)}
        if differs := compare(backbone.state_dict(), weights):
            raise SettingError(f"trained weights of {choice.model} do not fit the changes in --config: {differs}.")
        backbone.load_state_dict(weights)
    options: dict[str, Any] = {"length": choice.length}
    if data.classes:
        options |= {"classes": data.classes, "label_smoothing": settings.label_smoothing}
    if kind_of(settings) is Answering and not all(question.answers for question in data.splits["train"]):
        options["threshold"] = 0.0  # until it is fitted
    if settings.balance == "weights":
        options["class_weights"] = class_weights(np.array(class_counts(data)))
    task = kind_of(settings)(choice.model, backbone, tokenizer, **options)
    adapt(task, settings.adapt, settings.freeze, settings.lora_rank)
    return task


def balanced_chances(data: TextData[Any]) -> NDArray[np.float64]:
    """For each training text the chance that makes every class equally likely."""
    counts = dict(zip(data.classes, class_counts(data), strict=True))
    chances = np.array([1 / counts[example.label] for example in data.splits["train"]])
    return chances / chances.sum()


def class_counts(data: TextData[Any]) -> list[int]:
    """Training texts of each class."""
    counts = Counter(example.label for example in data.splits["train"])
    return [counts[name] for name in data.classes]
