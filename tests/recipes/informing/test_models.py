from __future__ import annotations

import json
import re

import pytest

from vitrail import models
from vitrail.errors import UnknownName
from vitrail.recipes.informing.models import list_models
from vitrail.recipes.informing.settings import Models
from vitrail.weights.published import recommended


def test_every_model_is_listed_once():
    rows = list_models(Models(json=True))
    assert [row["name"] for row in rows] == models.names() + models.text_names()
    assert [row["reads"] for row in rows] == ["images"] * len(models.names()) + ["text"] * len(models.text_names())


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
    said = vitrail("models", "swin-*", "--json")
    assert [row["name"] for row in json.loads(said.out)] == [f"swin-{size}" for size in "tsbl"]


def test_for_people_it_is_a_table(vitrail):
    lines = [line.split() for line in vitrail("models", "swin-[ts]").out.splitlines()]
    assert lines[0] == ["name", "parameters", "GFLOPs", "pixels", "accuracy", "paper", "weights"]
    weights = "hf:timm/swin_tiny_patch4_window7_224.ms_in1k"
    assert lines[1] == ["swin-t", "27.52", "M", "8.98", "224", "81.4", "arXiv:2103.14030", weights]


def test_a_narrow_terminal_shows_no_weights(vitrail, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    lines = re.sub("\x1b\\[[0-9;]*m", "", vitrail("models").out).splitlines()
    assert lines[0].split() == ["name", "parameters", "GFLOPs", "pixels", "accuracy", "paper"]
    assert max(map(len, lines)) <= 80
    assert len(lines) < len(models.names()) + len(models.text_names()) + 12  # no row is broken


def test_published_weights_are_named_where_there_are_any():
    rows = {row["name"]: row for row in list_models(Models(json=True))}
    assert (rows["vit-nano"]["weights"], rows["vit-nano"]["accuracy"], rows["vit-nano"]["paper"]) == (None, None, None)
    for name, row in rows.items():
        assert row["weights"] == (recommended(name).reference if recommended(name) else None)
    assert rows["swin-t"]["accuracy"] == pytest.approx(81.39, abs=0.05)  # timm's measurement


def test_a_model_of_text_is_told_with_what_it_reads():
    (row,) = list_models(Models("gpt2", json=True))
    assert (row["parameters"], row["context"], row["vocabulary"], row["features"]) == (124_439_808, 1024, 50_257, 768)
    assert (row["reads"], row["family"], row["weights"]) == ("text", "gpt", "hf:openai-community/gpt2")


def test_models_of_text_are_a_table_of_their_own(vitrail):
    lines = [line.split() for line in vitrail("models", "*-nano").out.splitlines()]
    heads = [number for number, line in enumerate(lines) if line[:1] == ["name"]]
    assert [lines[number][1:4] for number in heads] == [
        ["parameters", "GFLOPs", "pixels"],
        ["parameters", "context", "vocabulary"],
    ]
    assert lines[heads[1] - 1] == []
    assert "vit-nano" in [line[0] for line in lines[: heads[1]] if line]
    assert ["gpt-nano", "834,304", "64", "256"] in lines[heads[1] :]
    assert vitrail("models", "gpt*").out.splitlines()[0].split()[:3] == ["name", "parameters", "context"]


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(UnknownName, match="did you mean resnet-50"):
        list_models(Models("resnet50"))
