"""Trained models of text that are to be a little different."""

from __future__ import annotations

import pytest
import torch

from vitrail import models
from vitrail.data.text.characters import learn
from vitrail.errors import SettingError
from vitrail.weights.text import PretrainedText

SHAPE = {"width": 24, "depth": 2, "heads": 3, "mlp": 48, "vocabulary": 30, "context": 16}
FAMILIES = ("gpt", "bert")


def pretrained(family: str, **changes: object) -> PretrainedText:
    torch.manual_seed(0)
    backbone = models.create_text(family, **{**SHAPE, **changes}).eval()
    return PretrainedText(family, backbone, learn(["abc"], 30, ()))


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_a_shorter_context_takes_the_first_positions(family: str) -> None:
    before = pretrained(family)
    after = before.changed(context=9)
    assert after.backbone.config.context == 9
    ids = torch.randint(30, (2, 9))
    assert torch.equal(after.backbone(ids).tokens, before.backbone(ids).tokens)
    assert not after.backbone.training


def test_rotary_positions_have_no_end() -> None:
    before = pretrained("gpt", position="rotary")
    after = before.changed(context=40)
    with torch.no_grad():
        assert after.backbone(torch.randint(30, (1, 40))).tokens.shape == (1, 40, 24)


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_no_part_of_the_weights_can_be_changed(family: str) -> None:
    before = pretrained(family)
    after = before.changed(dropout=0.3)
    assert after.backbone.config.dropout == 0.3
    assert before.changed() is before
    for name, tensor in before.backbone.state_dict().items():
        assert torch.equal(after.backbone.state_dict()[name], tensor)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("change", [{"context": 17}, {"depth": 3}, {"vocabulary": 31}])
def test_another_architecture_is_refused(family: str, change: dict[str, int]) -> None:
    ((name, value),) = change.items()
    with pytest.raises(
        SettingError, match=f"cannot be made into those of a model with {name}={value}; .*--weights none"
    ):
        pretrained(family).changed(**change)
