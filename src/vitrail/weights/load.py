"""From a reference to a task that is ready to predict: the one doorway for every checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vitrail import models
from vitrail.data.preprocess import Preprocess
from vitrail.errors import CheckpointError, SettingError, UserError
from vitrail.nn.backbone import Backbone
from vitrail.nn.position import Resampling
from vitrail.objectives import ImageObjective
from vitrail.tasks import Classification, Task
from vitrail.tasks.learner import Learner
from vitrail.weights import fine_tuned, objective, saved, text
from vitrail.weights.describe import Description, class_names, describe, preprocess
from vitrail.weights.files import find
from vitrail.weights.palette import all_tensors
from vitrail.weights.preprocessing import statistics
from vitrail.weights.rename import compare, to_ours


class Pretrained(NamedTuple):
    """A trained backbone, and what came with it.

    Attributes:
        model: a name in the table of models, or a family's.
        backbone: in evaluation mode, on the CPU.
        preprocess: how images are prepared for it.
        classes: what its classifier knows, in the order of the logits; empty if it came without one.
        head: the classifier's tensors; empty if it came without one.
        resampling: how its library changes positions for another image size.
    """

    model: str
    backbone: Backbone
    preprocess: Preprocess
    classes: tuple[str, ...]
    head: dict[str, Tensor]
    resampling: Resampling

    def named(self, classes: Sequence[str]) -> Pretrained:
        """The same with other names for its classes. Raises :class:`SettingError` for another number of them."""
        if len(classes) != len(self.classes):
            raise SettingError(f"{len(classes)} names were given for the {len(self.classes)} classes of {self.model}.")
        return self._replace(classes=tuple(classes))

    def changed(self, **changes: Any) -> Pretrained:
        """The same for another ``image_size``, ``patch_size``, ``channels`` or drop-path rate.

        Where no size is given it is that of `preprocess`, which may differ from the weights' own, as DINOv2's does.
        Raises :class:`SettingError` for a change that makes it another architecture.
        """
        before = self.backbone.config
        after = models.altered(self.model, before, **{"image_size": self.preprocess.size, **changes})
        if after == before:
            return self._replace(preprocess=fitted(self.preprocess, self.backbone))
        backbone = models.FAMILIES[models.family(self.model)].build(after)
        weights = backbone.adapted(self.backbone.state_dict(), before, self.resampling)
        if compare(backbone.state_dict(), weights):
            differ = [name for name in changes if getattr(after, name) != getattr(before, name)]
            words = ", ".join(f"{name}={getattr(after, name)}" for name in differ)
            raise SettingError(
                f"trained weights of {self.model} cannot be made into those of a model with {words}; "
                "another shape begins with random ones, --weights none."
            )
        backbone.load_state_dict(weights)
        return self._replace(backbone=backbone.eval(), preprocess=fitted(self.preprocess, backbone))


def load(
    reference: str | Path,
    *,
    layout: str | None = None,
    model: str | None = None,
    config: Mapping[str, Any] | None = None,
    classes: Sequence[str] | None = None,
    preprocess: Mapping[str, Any] | None = None,
    **changes: Any,
) -> Learner:
    """The task or objective of a run's folder or of published weights, in evaluation mode, on the CPU.

    Args:
        reference: a run's folder; ``hf:ORG/NAME[@REVISION][/FILE]``, ``timm:NAME``; a folder or file of weights.
        layout, model, config: whose names a file has and what model it is, with changes to its config, where there is
            no ``config.json`` to say it.
        classes: names in the order of the logits, where the files do not have them or others are wanted.
        preprocess: settings of `Preprocess` that differ from what the files say, or their layout's use.
        changes: another ``image_size``, ``patch_size`` or ``channels`` than the weights were made for.

    Raises :class:`RunError` for a run that is missing, incomplete or of a newer version, :class:`CheckpointError` for
    files that are missing, damaged, unsafe or of another model, and what `models.create` raises for ``changes``.
    """
    if saved.is_ours(reference, layout):
        if classes is not None or preprocess:
            raise SettingError(f"{reference} knows its classes and its preprocessing; they are for files to be told.")
        ours = saved.load(reference)
        return _changed(ours, changes) if changes else ours
    if text.is_text(reference, model):
        if model is None and layout is None and fine_tuned.described(find(reference)) is not None:
            return fine_tuned.load(reference, classes=classes)
        return text.load(reference, layout=layout, model=model, config=config)
    if model is None and layout is None and objective.described(find(reference)) is not None:
        return objective.load(reference, config=config)
    found = load_pretrained(reference, layout=layout, model=model, config=config).changed(**changes)
    if classes is not None:
        found = found.named(classes)
    if preprocess:
        found = found._replace(preprocess=replace(found.preprocess, **preprocess))
    if not found.classes:
        return _without_classifier(reference, layout, model, config)
    task = Classification(found.model, found.backbone, found.classes, found.preprocess)
    task.head.load_state_dict(found.head)
    return task.eval()


def load_pretrained(
    reference: str | Path,
    *,
    layout: str | None = None,
    model: str | None = None,
    config: Mapping[str, Any] | None = None,
) -> Pretrained:
    """The trained backbone that a reference names, with or without a classifier; arguments and errors as of `load`."""
    if saved.is_ours(reference, layout):
        return _parts(saved.load(reference))
    files = find(reference)
    tensors = all_tensors(files)
    description = describe(files, tensors, layout, model, config or {})
    known, prepared = class_names(files, description, tensors), preprocess(files, description)
    weights, resampling = renamed(files.name, tensors, description, known, prepared)
    backbone = models.FAMILIES[models.family(description.model)].build(description.config)
    backbone.load_state_dict(_part(weights, "backbone."))
    return Pretrained(description.model, backbone.eval(), prepared, known, _part(weights, "head."), resampling)


def renamed(
    name: str,
    tensors: Mapping[str, Tensor],
    description: Description,
    known: tuple[str, ...],
    prepared: Preprocess,
) -> tuple[dict[str, Tensor], Resampling]:
    """The tensors in our names, all of them and no others, by the layout that fits, and how that one resamples.

    Raises :class:`CheckpointError` with the whole difference if none fits; that to the nearest of them.
    """
    with torch.device("meta"):  # names and shapes are all that is needed
        backbone = models.FAMILIES[models.family(description.model)].build(description.config)
        wanted = {f"backbone.{name}": value for name, value in backbone.state_dict().items()}
        if known:
            wanted = Classification(description.model, backbone, known, prepared).state_dict()
    attempts = [
        (*to_ours(tensors, wanted, layout, description.config), layout) for layout in description.layouts.values()
    ]
    weights, difference, layout = min(attempts, key=lambda attempt: len(attempt[1]))
    if difference:
        raise CheckpointError(f"{name} does not fit the model {description.model}: {difference}.")
    return weights, layout.resampling


def fitted(preprocess: Preprocess, backbone: Backbone) -> Preprocess:
    """The same preparation at the image size and with the channels of a backbone."""
    channels = backbone.config.channels
    return replace(
        preprocess,
        size=backbone.config.image_size,
        channels=channels,
        mean=statistics(preprocess.mean, channels),
        std=statistics(preprocess.std, channels),
    )


def _parts(learner: Learner) -> Pretrained:
    """A learner of ours taken apart. Raises :class:`CheckpointError` for one of text."""
    if isinstance(learner, Classification):
        head, known = learner.head.state_dict(), learner.classes
    elif isinstance(learner, ImageObjective):
        head, known = {}, ()
    else:
        raise CheckpointError(f"{learner.model} is a model of text; give one of images.")
    backbone = learner.backbone.requires_grad_(True)  # which a teacher's is not, and somebody may train it
    return Pretrained(learner.model, backbone, learner.preprocess, known, head, "bicubic-antialias")


def _without_classifier(
    reference: str | Path, layout: str | None, model: str | None, config: Mapping[str, Any] | None
) -> Learner:
    """What the weights were pre-trained with, where they hold all of it and a person says what they are."""
    try:
        return objective.load(reference, layout=layout, model=model, config=config)
    except UserError as error:
        raise CheckpointError(
            f"{reference} has no classifier; train one on it with `vitrail train DATA --weights {reference}`."
        ) from error


def _changed(learner: Learner, changes: Mapping[str, Any]) -> Learner:
    """A task of ours for another image size and so on."""
    if not isinstance(learner, Task):
        raise CheckpointError(f"the objective {learner.name} is for the images that it was trained on; change nothing.")
    other = _parts(learner).changed(**changes)
    learner.backbone, learner.preprocess = other.backbone, other.preprocess
    return learner


def _part(weights: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
