"""What the families' lists of released weights say can be true, and is found by name."""

from __future__ import annotations

import re
from importlib import resources

import pytest

from vitrail import models
from vitrail.weights.files import hub_reference
from vitrail.weights.published import Published, of_family, recommended

ALL = [(family, weights) for family in models.FAMILIES for weights in of_family(family)]


def test_there_are_some() -> None:
    assert len(ALL) > 20


@pytest.mark.parametrize(("family", "weights"), ALL, ids=[weights.reference for _, weights in ALL])
def test_each_row(family: str, weights: Published) -> None:
    assert weights.model in models.FAMILIES[family].sizes
    reference = hub_reference(weights.reference)
    assert reference is not None
    assert weights.licence
    assert weights.licence == weights.licence.lower()
    assert weights.data
    assert weights.accuracy is None or 0 < weights.accuracy < 100
    assert (weights.accuracy is None) == (not weights.measured_by)
    assert weights.image_size > 0
    assert len(weights.mean) == len(weights.std) == 3
    assert all(0 <= mean <= 1 and 0 < std <= 1 for mean, std in zip(weights.mean, weights.std, strict=True))
    assert re.fullmatch(r"(arXiv:\d{4}\.\d{4,5}(, )?|[A-Z][^:]+ \d{4}.*)+", weights.paper), weights.paper
    assert not weights.sha256 or re.fullmatch(r"[0-9a-f]{64}", weights.sha256)


OF_TEXT = [(family, weights) for family in models.TEXT_FAMILIES for weights in of_family(family)]


@pytest.mark.parametrize(("family", "weights"), OF_TEXT, ids=[weights.reference for _, weights in OF_TEXT])
def test_each_row_of_a_model_of_text(family: str, weights: Published) -> None:
    assert weights.model in models.TEXT_FAMILIES[family].sizes
    assert hub_reference(weights.reference) is not None
    assert weights.licence == weights.licence.lower() != ""
    assert weights.data
    assert (weights.accuracy, weights.mean, weights.std) == (None, (), ())
    assert re.fullmatch(r"(arXiv:\d{4}\.\d{4,5}(, )?|[A-Z][^:]+ \d{4}.*)+", weights.paper), weights.paper


def test_no_weights_are_listed_twice() -> None:
    rows = [(weights.model, weights.reference) for _, weights in ALL]
    assert len(rows) == len(set(rows))


@pytest.mark.parametrize("family", models.FAMILIES)
def test_no_address_is_in_a_list(family: str) -> None:
    file = resources.files(f"vitrail.models.{family.replace('-', '_')}") / "published.toml"
    assert not file.is_file() or "://" not in file.read_text(encoding="utf-8")


def test_the_first_of_a_model_is_recommended() -> None:
    for family, weights in ALL:
        of_the_model = [row for row in of_family(family) if row.model == weights.model]
        assert recommended(weights.model) == of_the_model[0]
    assert recommended("vit-22b14") is None
