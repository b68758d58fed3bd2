"""How pre-training on text begins."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vitrail import models
from vitrail.console import say
from vitrail.data.loader import load_batches
from vitrail.data.rng import torch_seed
from vitrail.data.source import SplitName
from vitrail.data.text.batch import TextBatch
from vitrail.data.text.corpus import Corpus, open_corpus
from vitrail.data.text.tokenizers import find_tokenizer
from vitrail.errors import CheckpointError
from vitrail.objectives import TEXT_OBJECTIVES, TextObjective
from vitrail.recipes.config import config_changes, parsed_changes
from vitrail.recipes.pretraining.prepared import Pretraining, steps_for
from vitrail.recipes.pretraining.settings import Pretrain
from vitrail.train import distributed
from vitrail.weights import text
from vitrail.weights.rename import compare

BATCH_SIZE = 32
EPOCHS = 3
VALIDATED = 512  # rows that are measured now and then in training; at its end it is all of them


def prepare(settings: Pretrain) -> Pretraining:
    """Open the text, turn it into tokens, and build the objective.

    Raises :class:`SettingError` for what cannot be, :class:`DataError` for text that cannot be used.
    """
    assert settings.data is not None
    corpus = open_corpus(settings.data, text_column=settings.text_column, seed=settings.seed)
    for note in corpus.notes:
        say(note)
    learner = build(settings, corpus)
    documents = {split: learner.tokenizer.encode_many(texts) for split, texts in corpus.splits.items()}
    batch_size = settings.batch_size or BATCH_SIZE
    place = (distributed.rank(), distributed.world())
    batches = learner.training_batches(documents["train"], batch_size, settings.seed, *place)
    split: SplitName = "test" if "test" in documents else "validation"
    steps = steps_for(settings, batches.steps_per_epoch, EPOCHS)
    tokens = sum(map(len, documents["train"]))
    parameters = sum(parameter.numel() for parameter in learner.parameters())

    def load(start: int, stop: int) -> Iterator[TextBatch]:
        yield from load_batches(batches, start, stop, 0)

    return Pretraining(
        learner,
        load,
        steps,
        batches.steps_per_epoch,
        batch_size,
        learner.evaluation_batches(documents["validation"], batch_size, *place, most=VALIDATED),
        learner.evaluation_batches(documents[split], batch_size, *place),
        split,
        2.0 * parameters * batch_size / distributed.world() * learner.window,  # two operations a weight and token
        fingerprint(documents),
        f"{tokens:,} training tokens of {len(learner.tokenizer):,} kinds: {learner.name} with {learner.model} on "
        f"{learner.backbone.config.context} at once for {steps:,} steps in batches of {batch_size}",
        next_command=learner.next_command,
    )


def build(settings: Pretrain, corpus: Corpus) -> TextObjective:
    """The objective around its model, from random weights or trained ones."""
    kind = TEXT_OBJECTIVES[str(settings.objective)]
    torch.manual_seed(torch_seed(settings.seed, "init"))
    if settings.weights != "none":
        return from_trained(settings, kind)
    texts = [text for of_split in corpus.splits.values() for text in of_split]  # no character of any is unknown
    tokenizer = find_tokenizer(settings.tokenizer, texts, settings.vocabulary, kind.special)
    model = settings.model if settings.model != "auto" else kind.usual_model
    changes = {"vocabulary": len(tokenizer), **_changes(settings, model)}
    options = kind.Options(**parsed_changes(kind.Options, settings.options, "--options"))
    return kind(model, models.create_text(model, **changes), tokenizer, options)


def from_trained(settings: Pretrain, kind: type[TextObjective]) -> TextObjective:
    """The objective on a trained model; with its output layer and all else, where that comes with it and fits."""
    stated = parsed_changes(kind.Options, settings.options, "--options")
    before = trained_with(settings, kind)
    found = text.load_backbone(settings.weights, tokenizer=_named(settings))
    found = found.changed(**_changes(settings, found.model))
    options = kind.Options(**stated) if before is None else replace(before.options, **stated)
    learner = kind(found.model, found.backbone.train().requires_grad_(), found.tokenizer, options)
    if before is not None and not compare(learner.state_dict(), before.state_dict()):
        learner.load_state_dict(before.state_dict())
    elif set(learner.state_dict()) != {f"backbone.{name}" for name in found.backbone.state_dict()}:
        say(f"{settings.weights} gives the weights of the model; all else of {kind.name} begins with random ones")
    return learner


def trained_with(settings: Pretrain, kind: type[TextObjective]) -> TextObjective | None:
    """The objective that the weights were trained with, if it is of this kind and the files hold all of it."""
    try:
        before = text.load(settings.weights, tokenizer=_named(settings))
    except CheckpointError:
        return None
    return before if type(before) is kind else None


def _changes(settings: Pretrain, model: str) -> dict[str, Any]:
    """What a person wants to be other than the model has it."""
    context = {} if settings.context is None else {"context": settings.context}
    return {**context, **config_changes(model, settings.config)}


def _named(settings: Pretrain) -> str | None:
    return None if settings.tokenizer == "characters" else settings.tokenizer


def fingerprint(documents: dict[Any, list[NDArray[np.int32]]]) -> str:
    """A hash of every token in every split: another value means other text, or another tokenizer."""
    digest = hashlib.blake2b(digest_size=16)
    for split, rows in documents.items():
        digest.update(f"\n{split} {len(rows)}".encode())
        for row in rows:
            digest.update(row.tobytes())
    return digest.hexdigest()
