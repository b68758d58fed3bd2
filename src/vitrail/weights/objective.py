"""From a reference to what a backbone was pre-trained with: the whole of it, such as MAE's decoder, too."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vitrail import models
from vitrail.data.preprocess import Preprocess
from vitrail.errors import CheckpointError, SettingError, UnknownName
from vitrail.models.layout import Described, Layout
from vitrail.objectives import IMAGE_OBJECTIVES, ImageObjective
from vitrail.weights import saved
from vitrail.weights.describe import Description, preprocess
from vitrail.weights.files import Files, find
from vitrail.weights.palette import all_tensors
from vitrail.weights.rename import to_ours


def load(
    reference: str | Path,
    *,
    objective: str | None = None,
    layout: str | None = None,
    model: str | None = None,
    config: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
) -> ImageObjective:
    """An image objective with its weights, a run's or published ones; in evaluation mode, on the CPU.

    Args:
        reference, layout, model, config: as of `weights.load.load`.
        objective: which one it is, where the files do not say so.
        options: what was set about it, where the files do not say so.

    Raises :class:`CheckpointError` for files that are missing, damaged, of something else, or of the backbone alone.
    """
    if saved.is_ours(reference, layout):
        ours = saved.load(reference)
        if not isinstance(ours, ImageObjective):
            raise CheckpointError(f"{reference} was not pre-trained on images; give a run of `vitrail pretrain`.")
        if options:
            raise SettingError(f"{reference} knows what was set about {ours.name}; options are for files to be told.")
        return ours
    files = find(reference)
    kind, stated, layouts = _what_it_is(files, objective, layout, model, config or {})
    backbone = models.create(stated.model, **stated.changes)
    prepared = _prepared(files, stated, backbone.config, layouts)
    learner = kind(stated.model, backbone, prepared, kind.Options(**{**stated.options, **(options or {})}))
    tensors = all_tensors(files)
    attempts = [to_ours(tensors, learner.state_dict(), each, backbone.config) for each in layouts.values()]
    weights, difference = min(attempts, key=lambda attempt: len(attempt[1]))
    if difference and weights and all(name.startswith("backbone.") for name in weights):
        raise CheckpointError(f"{files.name} holds a backbone alone, and nothing else of {kind.name}.")
    if difference:
        raise CheckpointError(f"{files.name} does not fit {kind.name} with {stated.model}: {difference}.")
    learner.load_state_dict(weights)
    return learner.eval()


def kind_of(reference: str | Path) -> type[ImageObjective] | None:
    """The objective that a run, or a repository by its own config, was trained with; None for anything else."""
    if saved.is_ours(reference):
        return IMAGE_OBJECTIVES.get(str(saved.read_description(Path(reference)).get("objective")))
    found = described(find(reference))
    return found[0] if found else None


def described(files: Files) -> tuple[type[ImageObjective], Described, Mapping[str, Layout]] | None:
    """The objective that a repository's ``config.json`` states, and the layouts that may fit; None for no such."""
    for kind in IMAGE_OBJECTIVES.values():
        read = {name: layout.read(files.config) for name, layout in kind.layouts.items()} if files.config else {}
        found = {name: stated for name, stated in read.items() if stated is not None}
        for stated in found.values():
            return kind, stated, {name: kind.layouts[name] for name in found}
    return None


def _what_it_is(
    files: Files, objective: str | None, layout: str | None, model: str | None, config: Mapping[str, Any]
) -> tuple[type[ImageObjective], Described, Mapping[str, Layout]]:
    if layout is None and model is None:
        found = described(files)
        if found is None:
            raise CheckpointError(f"{files.name} does not say what it is; give --layout and --model.")
        kind, stated, layouts = found
        return kind, stated._replace(changes={**stated.changes, **config}), layouts
    if layout is None or model is None:
        raise CheckpointError(f"{files.name} does not say what it is; give --layout and --model.")
    kinds = [IMAGE_OBJECTIVES[objective]] if objective is not None else list(IMAGE_OBJECTIVES.values())
    kinds.sort(key=lambda kind: sum(config.get(name, value) != value for name, value in kind.usual_config.items()))
    for kind in kinds:  # those first that what a person says of the model suits best
        if layout in kind.layouts and models.family(model) in kind.families:
            stated = Described(model, {**kind.layouts[layout].implies, **config})
            return kind, stated, {layout: kind.layouts[layout]}
    raise UnknownName("layout of an objective", layout, {name for kind in kinds for name in kind.layouts})


def _prepared(files: Files, stated: Described, config: Any, layouts: Mapping[str, Layout]) -> Preprocess:
    return preprocess(files, Description(stated.model, config, layouts))
