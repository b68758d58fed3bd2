"""The proofs of the families: what they would train can be built, and without data each is skipped with the reason."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
import torch

from vitrail import models
from vitrail.proofs import data
from vitrail.proofs.prove import PROOFS
from vitrail.recipes.config import config_changes

FAMILIES = [name for name in PROOFS if name not in ("explain", "hopfield", "resume")]  # those make their own data


@pytest.mark.parametrize("name", FAMILIES)
def test_without_data_it_is_skipped(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def no_hub(repository: str, part: str) -> Path:
        raise ConnectionError("no network")

    monkeypatch.setattr(data, "from_hub", no_hub)
    proof = PROOFS[name](tmp_path, tmp_path / "out")
    assert (proof.measured, proof.passed) == (None, None)
    assert "cannot be fetched" in proof.reason
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["bit", "pvt", "swin", "t2t"])
def test_its_network_can_be_built_for_its_images(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[Any] = []
    module = importlib.import_module(f"vitrail.proofs.{name}")
    monkeypatch.setattr(module, "train_and_compare", lambda proof, find, settings: asked.append(settings))
    module.prove(None, tmp_path)
    (settings,) = asked
    size = settings.image_size
    with torch.device("meta"):
        backbone = models.create(settings.model, **config_changes(settings.model, settings.config), image_size=size)
        features = backbone.eval()(torch.empty(1, 3, size, size))
    assert features.grid == (4, 4) if name != "bit" else features.maps[0].shape[-1] == size // 4
