"""What the proofs of learning without labels measure: linear classifiers on features, random ones and pixels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vitrail.proofs import igpt
from vitrail.proofs import probed as module
from vitrail.proofs.probed import learn_and_probe
from vitrail.proofs.prove import PROOFS
from vitrail.recipes.pretraining.settings import Pretrain

SETTINGS = Pretrain(
    objective="mae",
    model="vit-micro",
    config=("width=24", "depth=1", "heads=3", "mlp=24"),
    steps=2,
    batch_size=8,
    workers=0,
    device="cpu",
)


@pytest.fixture
def bright_and_dark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two classes that a look at the brightness parts."""
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for name, least in (("bright", 128), ("dark", 0)):
            (tmp_path / split / name).mkdir(parents=True)
            for number in range(20):
                pixels = rng.integers(least, least + 128, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / split / name / f"{number}.png")
    monkeypatch.setattr(module, "cifar10", lambda data: tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("objective", "model", "config"),
    [("mae", "vit-micro", SETTINGS.config), ("simclr", "vit-micro", SETTINGS.config),
     ("dino", "vit-micro", SETTINGS.config), ("next-pixel", "igpt-nano", ("width=8", "depth=2", "heads=2", "mlp=8"))],
)  # fmt: skip
def test_from_training_to_the_figures(bright_and_dark, tmp_path, objective, model, config):
    settings = replace(SETTINGS, objective=objective, model=model, config=config, out=tmp_path / "out")
    proof = learn_and_probe("a-probe", None, settings)
    assert proof.name == "a-probe"
    assert (proof.measured or 0) >= 0.9  # two steps do no harm to brightness
    assert proof.baseline == 1  # that of pixels
    assert proof.bar == pytest.approx(1.05)
    assert proof.passed is False
    assert (tmp_path / "out" / "untrained" / "model.safetensors").is_file()


def test_of_igpt_the_layer_is_read_that_is_best_on_validation(bright_and_dark, tmp_path, monkeypatch, capsys):
    def tiny(data: str, out: Path, seed: int) -> Pretrain:
        shape = ("width=8", "depth=2", "heads=2", "mlp=8", "image_size=4,4", "colours=4")
        changes = {"objective": "next-pixel", "model": "igpt-nano", "config": shape}
        return replace(SETTINGS, data=data, out=out, overwrite=True, **changes)

    asked = []
    monkeypatch.setattr(igpt, "linear", lambda *words: asked.append(words[2:]) or len(asked))
    monkeypatch.setattr(igpt, "cifar10", lambda data: bright_and_dark)
    monkeypatch.setattr(igpt, "small_igpt", tiny)
    proof = PROOFS["igpt-probe"](None, tmp_path / "proofs" / "igpt-probe")
    assert asked == [(("feature_layer=1",), "validation"), (("feature_layer=2",), "validation")]
    assert "feature_layer=2 is the best on validation" in capsys.readouterr().err
    assert 0 <= (proof.measured or -1) <= 1
    assert proof.bar == pytest.approx((proof.baseline or 0) + 0.05)


def test_without_the_images_it_is_skipped(monkeypatch, tmp_path):
    def missing(data: Path | None) -> Path:
        raise module.SettingError("there are no images.")

    monkeypatch.setattr(module, "cifar10", missing)
    proof = learn_and_probe("a-probe", None, SETTINGS)
    assert proof.passed is None
    assert proof.reason == "there are no images."
