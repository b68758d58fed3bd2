import pytest
import torch
from torch import nn

from vitrail import models
from vitrail.errors import SettingError, UnknownName
from vitrail.models.lenet import LeNet
from vitrail.models.resnet import ResNet
from vitrail.models.vit import ViT


def test_names_are_unique_and_find_their_family():
    names = models.names()
    assert len(names) == len(set(names))
    assert {name: models.family(name) for name in ("lenet-5", "resnet-50", "vit-b16")} == {
        "lenet-5": "lenet",
        "resnet-50": "resnet",
        "vit-b16": "vit",
    }
    assert {models.family(name) for name in names} == set(models.FAMILIES)


@pytest.mark.parametrize(("name", "kind"), [("lenet-5", LeNet), ("resnet-18", ResNet), ("vit-nano", ViT)])
def test_create_builds_what_was_published(name, kind):
    model = models.create(name)
    assert type(model) is kind
    assert model.config == models.config(name)


def test_changes_replace_fields_of_the_config():
    model = models.create("resnet-18", image_size=64, channels=1, stem="small", depths=[1, 1])
    assert model.config.image_size == (64, 64)
    assert model.config.depths == (1, 1)
    assert model(torch.zeros(1, 1, 64, 64)).pooled.shape == (1, 128)
    assert models.config("resnet-18").depths == (2, 2, 2, 2)


def test_an_image_size_may_be_a_number_a_tuple_or_a_list():
    sizes = [models.create("vit-nano", image_size=size).config.image_size for size in (16, (16, 16), [16, 16])]
    assert sizes == [(16, 16)] * 3


@pytest.mark.parametrize("function", [models.family, models.config, models.create])
def test_an_unknown_model_offers_the_nearest_names(function):
    with pytest.raises(UnknownName, match=r"no model called 'resnet18'; did you mean .*resnet-18"):
        function("resnet18")


def test_an_unknown_field_is_answered_with_the_fields_there_are():
    with pytest.raises(SettingError, match="'lenet-5' has no setting 'dept'; it has: image_size, channels"):
        models.create("lenet-5", dept=3)


def test_parameters_are_drawn_from_the_seed_alone():
    torch.manual_seed(7)
    first = models.create("vit-nano")
    torch.manual_seed(7)
    second = models.create("vit-nano")
    pairs = zip(first.parameters(), second.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert isinstance(first, nn.Module)
