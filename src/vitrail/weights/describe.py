"""What a checkpoint is: the model, layout, classes and preprocessing that its own files state, or a person does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from vitrail import models
from vitrail.data.preprocess import Preprocess
from vitrail.errors import CheckpointError, SettingError, UnknownName
from vitrail.heads import CLASSIFIERS
from vitrail.models.layout import Layout
from vitrail.nn.backbone import BackboneConfig
from vitrail.weights import preprocessing
from vitrail.weights.files import Files
from vitrail.weights.rename import COUNTER, count_fitting, names_of_theirs, unknown_names


@dataclass(frozen=True)
class Description:
    """What a checkpoint is made of.

    Attributes:
        model: a name in the table of models, or a family's.
        config: the config of the file's own backbone.
        layouts: the key tables that may fit, by name: several where a library has changed its names over time.
    """

    model: str
    config: BackboneConfig
    layouts: Mapping[str, Layout]


def describe(
    files: Files, tensors: Mapping[str, Tensor], layout: str | None, model: str | None, config: Mapping[str, Any]
) -> Description:
    """The model and layout that the repository's ``config.json`` states; else those that a person does.

    ``layout``, ``model`` and ``config`` (changes to the model) are a person's; they go before the file's.
    Raises :class:`CheckpointError` where neither says it, with the layouts that would fit, :class:`UnknownName` and
    :class:`SettingError` for a layout or model that there is not.
    """
    if layout is not None and layout not in layout_names():
        raise UnknownName("layout", layout, layout_names())
    if files.config and layout is None and model is None:
        return _as_the_repository_says(files, config)
    if model is None or layout is None:
        raise CheckpointError(f"{files.name} does not say what it is; give --layout and --model{suggestion(tensors)}.")
    layouts = models.FAMILIES[models.family(model)].layouts
    if layout not in layouts:
        raise SettingError(
            f"the layout '{layout}' has no {models.family(model)}; the family has: {', '.join(layouts) or 'none'}."
        )
    changes = {**layouts[layout].implies, **config}
    return Description(model, models.changed(model, **changes), {layout: layouts[layout]})


def layout_names() -> list[str]:
    """Every library or program whose layouts are known."""
    return sorted({name for family in models.FAMILIES.values() for name in family.layouts})


def _as_the_repository_says(files: Files, changes: Mapping[str, Any]) -> Description:
    try:
        stated = _stated(files.config)
        if stated is not None:
            with torch.device("meta"):
                models.FAMILIES[models.family(stated.model)].build(stated.config)
    except Exception as error:  # for what makes no sense, nearly anything
        raise CheckpointError(f"{files.name}: its config.json cannot be used: {error}") from error
    if stated is not None:
        return replace(stated, config=models.altered(stated.model, stated.config, **changes))
    kind = files.config.get("architecture") or files.config.get("model_type") or "nothing that is known"
    raise CheckpointError(
        f"{files.name} holds '{kind}', which is none of Vitrail's families: {', '.join(models.FAMILIES)}."
    )


def _stated(config: Mapping[str, Any]) -> Description | None:
    """What a ``config.json`` states; None if it is of no family that is known."""
    for family in models.FAMILIES.values():
        read = {name: layout.read(config) for name, layout in family.layouts.items()}
        found = {name: described for name, described in read.items() if described is not None}
        for model, changes, _ in found.values():
            return Description(model, models.changed(model, **changes), {name: family.layouts[name] for name in found})
    return None


def class_names(files: Files, description: Description, tensors: Mapping[str, Tensor]) -> tuple[str, ...]:
    """The class names in the order of the logits; their numbers where no file names them, none without a classifier."""
    number = class_count(description, tensors)
    names = _names(files.config)
    return names if len(names) == number else tuple(str(index) for index in range(number))


def class_count(description: Description, tensors: Mapping[str, Tensor]) -> int:
    """The length of the classifier's bias; 0 if there is no classifier."""
    backbone = models.FAMILIES[models.family(description.model)].build
    with torch.device("meta"):
        head = CLASSIFIERS[(built := backbone(description.config)).classifier](built, 1)
    biases = [f"head.{name}" for name, value in head.named_parameters() if value.shape == (1,)]
    for layout in description.layouts.values():
        given = layout.prepare(tensors)
        for bias in biases:
            names = names_of_theirs(layout.rows(description.config), bias)
            for name in names[0] if names else ():
                if name in given:
                    return given[name].numel()
    return 0


def preprocess(files: Files, description: Description) -> Preprocess:
    """How images are prepared for it: as its files say, else as its library does by default."""
    size, channels = description.config.image_size, description.config.channels
    try:
        if files.preprocessor:
            return preprocessing.from_transformers(files.preprocessor, size, channels)
        if "pretrained_cfg" in files.config:
            return preprocessing.from_timm(files.config, size, channels)
        usual = dict(next(iter(description.layouts.values())).preprocess)
        usual |= {key: preprocessing.statistics(usual[key], channels) for key in ("mean", "std")}
        return Preprocess(size=size, channels=channels, **usual)
    except (CheckpointError, SettingError, LookupError, TypeError, ValueError, ArithmeticError) as error:
        raise CheckpointError(f"{files.name}: its preprocessing cannot be used: {error}") from error


def fitting(tensors: Mapping[str, Tensor], most: int = 3) -> list[tuple[str, str, int, int]]:
    """The layouts and models whose names and shapes fit best: layout, model, how many of how many tensors."""
    found = []
    for family in models.FAMILIES.values():
        for model, config in family.sizes.items():
            known = {k: layout for k, layout in family.layouts.items() if _knows_most(layout, config, tensors)}
            if not known:  # building them all would take its time
                continue
            with torch.device("meta"):
                wanted = family.build(config).state_dict()
            for name, layout in known.items():
                matching = count_fitting(tensors, wanted, layout, config)
                total = sum(not each.endswith(COUNTER) for each in wanted)
                if matching > total / 3:
                    found.append((name, model, matching, total))
    found.sort(key=lambda row: (row[2] / row[3], row[3]), reverse=True)  # a ResNet-20 is in a ResNet-56, too
    whole = [row for row in found if row[2] == row[3] == found[0][3]]
    return (whole or found)[:most]


def _knows_most(layout: Layout, config: BackboneConfig, tensors: Mapping[str, Tensor]) -> bool:
    return len(unknown_names(tensors, layout, config)) < len(tensors) / 2


def known_names(tensors: Mapping[str, Tensor]) -> tuple[str, str] | None:
    """The layout and family that have a name for every tensor, whatever its shape; None if there is none."""
    for family, members in models.FAMILIES.items():
        for config in members.sizes.values():
            for name, layout in members.layouts.items():
                if not unknown_names(tensors, layout, config):
                    return name, family
    return None


def suggestion(tensors: Mapping[str, Tensor]) -> str:
    """The layouts and models that would fit, as the end of a sentence."""
    found = fitting(tensors)
    rows = (f"--layout {name} --model {model} ({fit} of {of} tensors)" for name, model, fit, of in found)
    if found and found[0][2] == found[0][3]:
        return f"; what fits is {' or '.join(rows)}"
    if (known := known_names(tensors)) is not None:
        layout, family = known
        return f"; the names are those of --layout {layout} --model {family}, its shape is for you to say with --config"
    if found:
        return f"; best fits {', then '.join(rows)}"
    return f", of {', '.join(layout_names())}; none of them fits its tensors"


def _names(config: Mapping[str, Any]) -> tuple[str, ...]:
    """The names of the classes in a ``config.json`` of Transformers or timm; empty if it has none."""
    if isinstance(config.get("id2label"), Mapping):
        return tuple(str(name) for _, name in sorted(config["id2label"].items(), key=lambda item: int(item[0])))
    for place in (config, config.get("pretrained_cfg")):
        if isinstance(place, Mapping) and isinstance(place.get("label_names"), list):
            described = place.get("label_descriptions") or {}
            return tuple(str(described.get(name, name)) for name in place["label_names"])
    return ()
