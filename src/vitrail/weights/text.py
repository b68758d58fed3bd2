"""From a reference to a model of text with its tokenizer: what `load` is for images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from vitrail import models
from vitrail.data.text.tokenizer import Tokenizer
from vitrail.data.text.tokenizers import open_tokenizer
from vitrail.errors import CheckpointError, SettingError, UnknownName
from vitrail.models.layout import Described, Layout
from vitrail.nn.backbone import TextBackbone
from vitrail.objectives import LEARNED_BY, TextObjective
from vitrail.weights import saved
from vitrail.weights.files import Files, fetch, find, hub_reference
from vitrail.weights.read import read_tensors
from vitrail.weights.rename import compare, to_ours

# What a tokenizer may need beside ``tokenizer.json``; fetched from a repository where that is missing.
TOKENIZER_FILES = (
    "tokenizer.json",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "tokenizer_config.json",
    "spiece.model",
    "encoder.json",
    "vocab.bpe",
)


class PretrainedText(NamedTuple):
    """A trained model of text, without a head, in evaluation mode on the CPU, and its tokenizer."""

    model: str
    backbone: TextBackbone
    tokenizer: Tokenizer

    def changed(self, **changes: Any) -> PretrainedText:
        """The same with a shorter context, or another dropout rate.

        Raises :class:`SettingError` for a change that makes it another architecture.
        """
        after = models.altered(self.model, self.backbone.config, **changes)
        if after == self.backbone.config:
            return self
        backbone = models.TEXT_FAMILIES[models.family(self.model)].build(after)
        weights = backbone.adapted(self.backbone.state_dict())
        if compare(backbone.state_dict(), weights):
            words = ", ".join(f"{name}={value}" for name, value in changes.items())
            raise SettingError(
                f"trained weights of {self.model} cannot be made into those of a model with {words}; another shape "
                "begins with random ones, --weights none."
            )
        backbone.load_state_dict(weights)
        return self._replace(backbone=backbone.eval())


def is_text(reference: str | Path, model: str | None) -> bool:
    """Whether a reference to others' weights is one of a model of text: by what a person, or its own config, says."""
    if model is not None:
        return models.family(model) in models.TEXT_FAMILIES
    return described(find(reference)) is not None


def load(
    reference: str | Path,
    *,
    layout: str | None = None,
    model: str | None = None,
    config: Mapping[str, Any] | None = None,
    tokenizer: str | Path | None = None,
) -> TextObjective:
    """The objective that published weights were trained with, or a run's; in evaluation mode, on the CPU.

    Args:
        reference, layout, model, config: as of `weights.load.load`.
        tokenizer: its file or folder, where it does not lie beside the weights.

    Raises :class:`CheckpointError` for files that are missing, damaged or of another model, or that lack the part of
    the model that predicts tokens.
    """
    if saved.is_ours(reference, layout):
        ours = saved.load(reference)
        if not isinstance(ours, TextObjective):
            raise CheckpointError(f"{reference} is not a model of text; give a run of `vitrail pretrain TEXT`.")
        return ours
    files = find(reference)
    tensors = read_tensors(files.weights)
    name, stated, layouts = what_it_is(files, tensors, layout, model, config or {})
    kind = LEARNED_BY[models.family(name)]
    learner = kind(
        name,
        models.create_text(name, **stated.changes),
        _tokenizer(files, reference, tokenizer),
        kind.Options(**stated.options),
    )
    learner.load_state_dict(renamed(files, tensors, learner.state_dict(), layouts, learner))
    return learner.eval()


def load_backbone(
    reference: str | Path,
    *,
    layout: str | None = None,
    model: str | None = None,
    config: Mapping[str, Any] | None = None,
    tokenizer: str | Path | None = None,
) -> PretrainedText:
    """The trained model without its head, which the files need not have; arguments and errors as of `load`."""
    if saved.is_ours(reference, layout):
        ours = saved.load(reference)
        if not isinstance(ours.backbone, TextBackbone):
            raise CheckpointError(f"{reference} is not a model of text; give a run of `vitrail pretrain TEXT`.")
        return PretrainedText(ours.model, ours.backbone, ours.tokenizer)  # type: ignore[arg-type]
    files = find(reference)
    tensors = read_tensors(files.weights)
    name, stated, layouts = what_it_is(files, tensors, layout, model, config or {})
    backbone = models.create_text(name, **stated.changes)
    wanted = {f"backbone.{key}": value for key, value in backbone.state_dict().items()}
    weights = renamed(files, tensors, wanted, layouts, backbone)
    backbone.load_state_dict({key.removeprefix("backbone."): value for key, value in weights.items()})
    return PretrainedText(name, backbone.eval(), _tokenizer(files, reference, tokenizer))


def described(files: Files) -> tuple[Described, Mapping[str, Layout]] | None:
    """The model of text that a repository's ``config.json`` states, and the layouts that may fit; None for no such."""
    for family in models.TEXT_FAMILIES.values():
        read = {name: layout.read(files.config) for name, layout in family.layouts.items()} if files.config else {}
        found = {name: stated for name, stated in read.items() if stated is not None}
        for stated in found.values():
            return stated, {name: family.layouts[name] for name in found}
    return None


def what_it_is(
    files: Files, tensors: Mapping[str, Tensor], layout: str | None, model: str | None, config: Mapping[str, Any]
) -> tuple[str, Described, Mapping[str, Layout]]:
    """The model's name, its changes and options, and the layouts that may fit."""
    if layout is None and model is None:
        found = described(files)
        if found is None:
            raise CheckpointError(f"{files.name} does not say what model of text it is; give --layout and --model.")
        stated, layouts = found
        stated = next(iter(layouts.values())).refine(stated, tensors)
        return stated.model, stated._replace(changes={**stated.changes, **config}), layouts
    if layout is None or model is None:
        raise CheckpointError(f"{files.name} does not say what it is; give --layout and --model.")
    known = models.TEXT_FAMILIES[models.family(model)].layouts
    if layout not in known:
        raise UnknownName("layout of this family", layout, known)
    stated = known[layout].refine(Described(model, {**known[layout].implies}), tensors)
    return model, stated._replace(changes={**stated.changes, **config}), {layout: known[layout]}


def renamed(
    files: Files,
    tensors: Mapping[str, Tensor],
    wanted: Mapping[str, Tensor],
    layouts: Mapping[str, Layout],
    built: Any,
) -> dict[str, Tensor]:
    """The tensors in our names, by the layout that fits. Raises :class:`CheckpointError` if none does."""
    config = (built.backbone if isinstance(built, TextObjective) else built).config
    attempts = [to_ours(tensors, wanted, layout, config) for layout in layouts.values()]
    weights, difference = min(attempts, key=lambda attempt: len(attempt[1]))
    if difference:
        raise CheckpointError(f"{files.name} does not fit the model: {difference}.")
    return weights


def _tokenizer(files: Files, reference: str | Path, named: str | Path | None) -> Tokenizer:
    """The tokenizer that a person names, else the one beside the weights."""
    if named is not None:
        return open_tokenizer(named)
    folder = files.weights[0].parent
    if hub_reference(str(reference)) is not None:
        _fetch_tokenizer(reference)
    try:
        return open_tokenizer(folder)
    except UnknownName as error:
        raise SettingError(f"{files.name} has no tokenizer beside its weights; name one with --tokenizer.") from error


def _fetch_tokenizer(reference: str | Path) -> None:
    """Bring the files of a repository's tokenizer into the cache, beside the weights."""
    hub = hub_reference(str(reference))
    assert hub is not None
    for file in TOKENIZER_FILES:
        if fetch(hub.repository, file, hub.revision) is not None and file == "tokenizer.json":
            return
