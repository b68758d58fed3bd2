"""The proof of the Hopfield network: its baseline holds what the textbooks say, and its pictures are drawn."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from vitrail.proofs import hopfield


def test_the_modern_network_finds_what_the_classical_one_cannot(tmp_path: Path) -> None:
    proof = hopfield.prove(None, tmp_path)
    assert proof.passed
    assert (proof.measured, proof.baseline) == (1.0, 0.0)
    with Image.open(tmp_path / "kinds.png") as picture:
        picture.verify()


def test_it_needs_no_scikit_learn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "sklearn.datasets", None)
    assert hopfield.prove(None, tmp_path).passed
    assert [path.name for path in tmp_path.iterdir()] == ["kinds.png"]


@pytest.mark.parametrize(("patterns", "least", "most"), [(40, 1.0, 1.0), (70, 0.7, 1.0), (250, 0.0, 0.0)])
def test_the_classical_network_holds_about_a_seventh_of_its_neurons(patterns: int, least: float, most: float) -> None:
    torch.manual_seed(0)
    stored = torch.randn(patterns, 512).sign()  # 0.14 · 512 = 72
    asked = torch.where(torch.rand(stored.shape) < 0.05, -stored, stored)
    agreement = (hopfield.settled(asked, stored) * stored).mean(dim=1)
    share = (agreement > 0.95).double().mean().item()  # near the capacity a few signs are wrong (Amit et al. 1985)
    assert least <= share <= most
