from __future__ import annotations

import json

import pytest

from vitrail import models
from vitrail.errors import UnknownName
from vitrail.recipes.models import Models, list_models


def test_every_model_is_listed_once():
    rows = list_models(Models(json=True))
    assert [row["name"] for row in rows] == models.names()


@pytest.mark.parametrize(
    ("name", "parameters", "gflops"),
    [
        # He et al. 2016 and Dosovitskiy et al. 2021, as timm measures them: multiply-adds, of which each is two.
        ("resnet-18", 11.2e6, 2 * 1.81),
        ("resnet-50", 23.5e6, 2 * 4.09),
        ("vit-b16", 85.8e6, 2 * 17.56),
    ],
)
def test_what_a_model_costs(name, parameters, gflops):
    (row,) = list_models(Models(name, json=True))
    assert row["parameters"] == pytest.approx(parameters, rel=0.01)
    assert row["gflops"] == pytest.approx(gflops, rel=0.01)
    assert (row["image_size"], row["channels"]) == ([224, 224], 3)


def test_the_operations_of_a_vision_transformer_are_those_of_its_matrices():
    """Counted by hand: patches, and in each block queries, keys, values, two products of attention, output, MLP."""
    (row,) = list_models(Models("vit-s32", json=True))
    N, D, M, depth = 7 * 7 + 1, 384, 1536, 12
    block = 3 * N * D * D + 2 * N * N * D + N * D * D + 2 * N * D * M
    assert row["gflops"] == pytest.approx(2 * (49 * 32 * 32 * 3 * D + depth * block) / 1e9, abs=1e-3)


def test_a_pattern_chooses(vitrail):
    said = vitrail("models", "resnet-*", "--json")
    assert [row["name"] for row in json.loads(said.out)] == [f"resnet-{depth}" for depth in (18, 34, 50, 101, 152)]


def test_for_people_it_is_a_table(vitrail):
    said = vitrail("models", "vit-[bg]*16")
    lines = [line.split() for line in said.out.splitlines()]
    assert lines[0] == ["name", "family", "parameters", "GFLOPs", "image", "size", "features"]
    assert lines[1] == ["vit-b16", "vit", "85.80", "M", "35.1", "224x224", "768"]


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(UnknownName, match="did you mean resnet-50"):
        list_models(Models("resnet50"))
