from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import huggingface_hub
import numpy as np
import pytest

from vitrail.data.sample import Label, Sample
from vitrail.data.source import Dataset, Source
from vitrail.proofs import lenet, vit
from vitrail.proofs.classifier import logistic_regression, pixels_and_classes, train_and_compare
from vitrail.proofs.data import Unavailable
from vitrail.proofs.proof import Proof
from vitrail.recipes.training.settings import Train

pytest.importorskip("sklearn", reason="the baseline is computed with scikit-learn")

PROOF = Proof("tiny", "accuracy", measured=None, baseline=None, bar=0.5)


@dataclass(frozen=True)
class Images(Source):
    pixels: np.ndarray
    classes: Sequence[int]

    def __len__(self) -> int:
        return len(self.pixels)

    def name(self, index: int) -> str:
        return f"image {index}"

    def label(self, index: int) -> Label:
        return Label(self.classes[index])

    def encoded(self, index: int) -> bytes:
        return self.pixels[index].tobytes()

    def sample(self, index: int) -> Sample:
        return Sample(self.pixels[index], self.name(index), self.label(index))


def dataset(brightness_tells: bool) -> Dataset:
    """Noise of 4 x 4 pixels in two classes, of which one is brighter, or that chance alone has parted."""
    rng = np.random.default_rng(0)

    def images(count: int) -> Images:
        classes = rng.integers(0, 2, count)
        pixels = rng.integers(0, 100, (count, 4, 4, 1)) + brightness_tells * 100 * classes[:, None, None, None]
        return Images(pixels.astype(np.uint8), classes.tolist())

    splits = {"train": images(200), "validation": images(100), "test": images(500)}
    return Dataset("noise", "memory", ("dark", "bright"), splits, channels=1)


def test_pixels_and_classes() -> None:
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 2, 2, 3)
    rows, classes = pixels_and_classes(Images(pixels, [1, 0]))
    assert rows.dtype == np.float32
    np.testing.assert_allclose(rows, np.arange(24).reshape(2, 12) / 255, rtol=1e-6)
    assert classes.tolist() == [1, 0]


def test_the_baseline_finds_what_pixels_tell_and_no_more() -> None:
    assert logistic_regression(dataset(brightness_tells=True)) == 1.0
    assert logistic_regression(dataset(brightness_tells=False)) == pytest.approx(0.5, abs=0.1)


def test_train_and_compare(tmp_path: Path) -> None:
    settings = Train(
        out=tmp_path / "run",
        model="vit-nano",
        config=("width=32", "depth=1", "heads=2", "mlp=64"),
        epochs=1,
        device="cpu",
    )
    proof = train_and_compare(PROOF, lambda: Path("digits"), settings)
    figures = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert (proof.measured, figures["split"]) == (figures["top1"], "test")
    assert proof.baseline is not None
    assert 0.93 < proof.baseline < 0.99  # what scikit-learn's users know of its digits
    assert proof.seconds > 0
    assert proof.reason == ""


def test_without_data_it_is_skipped_with_the_reason(tmp_path: Path) -> None:
    def nowhere() -> Path:
        raise Unavailable("there are no images; paint some.")

    proof = train_and_compare(PROOF, nowhere, Train(out=tmp_path / "run"))
    assert proof.passed is None
    assert proof.reason == "there are no images; paint some."
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("module", [lenet, vit])
def test_the_proofs_are_skipped_where_there_is_no_data(
    module: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*arguments: object, **settings: object) -> str:
        raise ConnectionError("no network")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    proof = module.prove(tmp_path, tmp_path / "run")
    assert (proof.measured, proof.passed) == (None, None)
    assert "--data DIR" in proof.reason


def test_without_scikit_learn_it_is_skipped_with_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.linear_model", None)
    proof = train_and_compare(PROOF, lambda: Path("digits"), Train(out=tmp_path / "run"))
    assert proof.passed is None
    assert "pip install 'vitrail[demo]'" in proof.reason
