"""What a checkpoint is: said by its own files, else by a person; and what would fit where neither does."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
import torch
from torch import Tensor

from vitrail import models
from vitrail.data.preprocess import Preprocess
from vitrail.errors import CheckpointError, SettingError, UnknownName, UserError
from vitrail.tasks import Classification
from vitrail.weights.describe import class_count, class_names, describe, fitting, layout_names, preprocess, suggestion
from vitrail.weights.files import Files
from vitrail.weights.rename import to_theirs

TIMM = {  # as on the Hub, for timm/resnet18.a1_in1k, but for its size and classes
    "architecture": "resnet18",
    "num_classes": 3,
    "num_features": 512,
    "pretrained_cfg": {
        "tag": "a1_in1k",
        "num_classes": 3,
        "input_size": [3, 64, 96],
        "interpolation": "bicubic",
        "crop_pct": 0.95,
        "crop_mode": "center",
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
        "first_conv": "conv1",
        "classifier": "fc",
    },
}
TRANSFORMERS = {
    "architectures": ["ViTForImageClassification"],
    "model_type": "vit",
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 48,
    "image_size": 32,
    "patch_size": 8,
    "num_channels": 3,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
    "qkv_bias": True,
    "id2label": {"1": "bee", "0": "ant", "2": "cat"},
}


def files(config: dict[str, Any] | None = None, preprocessor: dict[str, Any] | None = None) -> Files:
    return Files("some/weights", (), config or {}, preprocessor or {})


def tensors_of(model: str, layout: str, classes: int = 3, **changes: Any) -> dict[str, Tensor]:
    """Random weights of a model under another library's names; without a classifier if there are no classes."""
    config = models.changed(model, **changes)
    backbone = models.FAMILIES[models.family(model)].build(config)
    state = {f"backbone.{name}": value for name, value in backbone.state_dict().items()}
    if classes:
        names = [str(number) for number in range(classes)]
        state = Classification(model, backbone, names, Preprocess(size=config.image_size)).state_dict()
    return to_theirs(state, models.FAMILIES[models.family(model)].layouts[layout], config)


# ------------------------------------------------------------------------------------------------ what the files say


def test_a_config_of_timm() -> None:
    found = describe(files(TIMM), {}, None, None, {})
    assert found.model == "resnet-18"
    assert found.config == models.changed("resnet-18", image_size=(64, 96))
    assert list(found.layouts) == ["timm"]


def test_a_config_of_transformers_with_the_names_of_its_versions() -> None:
    found = describe(files(TRANSFORMERS), {}, None, None, {})
    assert models.family(found.model) == "vit"
    assert (found.config.width, found.config.depth, found.config.image_size) == (24, 2, (32, 32))
    assert list(found.layouts) == ["transformers", "transformers-5"]


def test_changes_go_before_what_the_file_says() -> None:
    assert describe(files(TIMM), {}, None, None, {"image_size": 32}).config.image_size == (32, 32)
    with pytest.raises(SettingError, match="has no setting 'colour'"):
        describe(files(TIMM), {}, None, None, {"colour": 1})


def test_what_is_no_family() -> None:
    for config in ({"architecture": "efficientnet_b0"}, {"model_type": "bert"}):
        name = next(iter(config.values()))
        with pytest.raises(CheckpointError, match=f"some/weights holds '{name}', which is none of Vitrail's families"):
            describe(files(config), {}, None, None, {})
    with pytest.raises(CheckpointError, match="holds 'nothing that is known'"):
        describe(files({"x": 1}), {}, None, None, {})


def places(value: Any, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Every key of a nested dictionary, as a path."""
    found = []
    for key, below in value.items():
        found.append((*path, key))
        found += places(below, (*path, key)) if isinstance(below, dict) else []
    return found


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
@pytest.mark.parametrize("junk", [None, "large", -1, 0, 2.5, [], {}, [[1]], True], ids=repr)
@pytest.mark.parametrize("config", [TIMM, TRANSFORMERS], ids=["timm", "transformers"])
def test_whatever_a_config_says_is_taken_or_refused(config: dict[str, Any], junk: Any) -> None:
    for path in places(config):
        damaged = json.loads(json.dumps(config))
        place = damaged
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = junk
        given = files(damaged)
        with contextlib.suppress(UserError):  # much of it makes sense all the same
            found = describe(given, {}, None, None, {})
            class_names(given, found, {})
            preprocess(given, found)


# -------------------------------------------------------------------------------------------------- what a person says


def test_layout_and_model_go_before_the_files() -> None:
    found = describe(files(TRANSFORMERS), {}, "timm", "vit-ti16", {"image_size": 64})
    assert (found.model, found.config, list(found.layouts)) == (
        "vit-ti16",
        models.changed("vit-ti16", image_size=64),
        ["timm"],
    )


def test_a_family_takes_all_that_its_config_needs() -> None:
    shape = {"width": 24, "depth": 2, "heads": 3, "mlp": 48, "image_size": 32, "patch_size": 8}
    assert describe(files(), {}, "timm", "vit", shape).config.depth == 2


def test_an_unknown_layout_or_model() -> None:
    with pytest.raises(UnknownName, match="no layout called 'tim'; did you mean timm"):
        describe(files(), {}, "tim", "vit-ti16", {})
    with pytest.raises(UnknownName, match="no model called 'vit-t16'"):
        describe(files(), {}, "timm", "vit-t16", {})


def test_a_layout_that_does_not_have_the_family() -> None:
    with pytest.raises(SettingError, match="the layout 'google' has no resnet; the family has: "):
        describe(files(), {}, "google", "resnet-18", {})


@pytest.mark.parametrize(("layout", "model"), [(None, "resnet-18"), ("timm", None), (None, None)])
def test_half_of_it_is_too_little(layout: str | None, model: str | None) -> None:
    tensors = tensors_of("resnet-18", "torchvision")
    with pytest.raises(CheckpointError) as caught:
        describe(files(TIMM if layout or model else None), tensors, layout, model, {})
    said = str(caught.value)
    assert said.startswith("some/weights does not say what it is; give --layout and --model; what fits is --layout ")
    assert "--layout torchvision --model resnet-18 (100 of 100 tensors)" in said


# --------------------------------------------------------------------------------------------------- what would fit


def test_everything_that_fits_and_nothing_else() -> None:
    """Two models of the same shapes cannot be told apart, nor timm's and torchvision's names of a ResNet."""
    found = fitting(tensors_of("resnet-18", "torchvision"), most=100)
    assert {(layout, model) for layout, model, *_ in found} == {("timm", "resnet-18"), ("torchvision", "resnet-18")}


def test_a_smaller_model_that_is_in_a_larger_one_does_not_fit() -> None:
    found = fitting(tensors_of("resnet-56", "cifar"), most=100)
    assert {model for _, model, *_ in found} == {"resnet-56"}


def test_what_fits_in_part_where_nothing_fits_whole() -> None:
    tensors = tensors_of("resnet-18", "torchvision")
    del tensors["layer4.1.conv2.weight"]
    (_, model, count, of), *_ = fitting(tensors)
    assert (model, of - count) == ("resnet-18", 1)


def test_names_that_are_known_of_a_model_of_another_shape() -> None:
    shape = {"width": 24, "depth": 2, "heads": 3, "mlp": 48, "image_size": 32, "patch_size": 8}
    assert suggestion(tensors_of("vit", "transformers", **shape)) == (
        "; the names are those of --layout transformers --model vit, its shape is for you to say with --config"
    )


def test_tensors_of_nothing_that_is_known() -> None:
    assert suggestion({"some.weight": torch.zeros(3, 4)}) == (
        f", of {', '.join(layout_names())}; none of them fits its tensors"
    )


# ------------------------------------------------------------------------------------------------------- its classes


def test_names_from_either_library() -> None:
    described = describe(files(TRANSFORMERS), {}, None, None, {})
    shape = {"width": 24, "depth": 2, "heads": 3, "mlp": 48, "image_size": 32, "patch_size": 8}
    tensors = tensors_of("vit", "transformers", **shape)
    assert class_count(described, tensors) == 3
    assert class_names(files(TRANSFORMERS), described, tensors) == ("ant", "bee", "cat")

    described, tensors = describe(files(TIMM), {}, None, None, {}), tensors_of("resnet-18", "timm")
    assert class_names(files(TIMM), described, tensors) == ("0", "1", "2")
    named = {**TIMM, "label_names": ["n1", "n2", "n3"]}
    assert class_names(files(named), described, tensors) == ("n1", "n2", "n3")
    within = {**TIMM, "pretrained_cfg": {**TIMM["pretrained_cfg"], "label_names": ["n1", "n2", "n3"]}}  # type: ignore[dict-item]
    assert class_names(files(within), described, tensors) == ("n1", "n2", "n3")
    words = {**named, "label_descriptions": {"n1": "ant", "n3": "cat"}}
    assert class_names(files(words), described, tensors) == ("ant", "n2", "cat")


def test_as_many_names_as_there_are_logits_or_their_numbers() -> None:
    described, tensors = describe(files(TIMM), {}, None, None, {}), tensors_of("resnet-18", "timm", classes=2)
    assert class_names(files({**TIMM, "label_names": ["n1", "n2", "n3"]}), described, tensors) == ("0", "1")


def test_without_a_classifier_there_are_no_classes() -> None:
    described, tensors = describe(files(TIMM), {}, None, None, {}), tensors_of("resnet-18", "timm", classes=0)
    assert class_names(files({**TIMM, "label_names": ["n1"]}), described, tensors) == ()


# ------------------------------------------------------------------------------------------------------- preprocessing


def test_the_preprocessor_then_the_config_then_the_library() -> None:
    described = describe(files(TIMM), {}, None, None, {})
    processor = {"size": {"height": 32, "width": 32}, "image_mean": [0.1] * 3, "image_std": [0.3] * 3, "resample": 3}
    first = preprocess(files(TIMM, processor), described)
    assert (first.size, first.resize, first.mean, first.interpolation) == ((32, 32), "squash", (0.1,) * 3, "bicubic")
    second = preprocess(files(TIMM), described)
    assert (second.size, second.resize, second.crop_fraction) == ((64, 96), "crop", 0.95)
    third = preprocess(files(), described)
    assert (third.size, third.crop_fraction, third.mean) == ((64, 96), 0.875, (0.485, 0.456, 0.406))


def test_preprocessing_that_is_none_of_ours() -> None:
    described = describe(files(TIMM), {}, None, None, {})
    for processor in ({"do_resize": False}, {"size": "large"}, {"image_std": [0, 0, 0]}):
        with pytest.raises(CheckpointError, match="some/weights: its preprocessing cannot be used: "):
            preprocess(files(TIMM, processor), described)


def test_vit_22b_takes_no_memory() -> None:
    found = describe(files(), {}, "google", "vit-22b14", {})
    assert class_count(found, {"head/bias": torch.zeros(4)}) == 4
