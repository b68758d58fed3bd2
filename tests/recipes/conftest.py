"""Small coloured pictures, and models that have learned them: made once, shared by the tests of all recipes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

from vitrail.cli.main import main
from vitrail.recipes.training.settings import Train
from vitrail.recipes.training.train import train

COLOURS = {
    "blue": (40, 40, 210),
    "cyan": (40, 210, 210),
    "green": (40, 210, 40),
    "magenta": (210, 40, 210),
    "red": (210, 40, 40),
    "yellow": (210, 210, 40),
}
TINY = ("width=32", "depth=2", "heads=2", "mlp=64")

Paint = Callable[..., Path]


class Run(NamedTuple):
    """A trained model, what it was trained on, and what training returned."""

    folder: Path
    data: Path
    figures: dict[str, Any]


class Outcome(NamedTuple):
    """How a command ended, and what it wrote."""

    status: int
    out: str
    err: str


def picture(colour: tuple[int, int, int], noise: float, rng: np.random.Generator) -> Image.Image:
    """16 x 16 pixels of about one colour; with more noise the whole of them drifts towards others, too."""
    drift = rng.normal(0, noise, 3)
    pixels = np.array(colour) + drift + rng.normal(0, 10, (16, 16, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def _paint(folder: Path, classes: Iterable[str] = COLOURS, count: int = 20, noise: float = 10, seed: int = 0) -> Path:
    rng = np.random.default_rng(seed)
    for name in classes:
        (folder / name).mkdir(parents=True)
        for number in range(count):
            picture(COLOURS[name], noise, rng).save(folder / name / f"{number:02}.png")
    return folder


@pytest.fixture(scope="session")
def paint() -> Paint:
    """Writes a folder of class folders: ``paint(folder, classes, count, noise, seed)``."""
    return _paint


@pytest.fixture(scope="session")
def tiny() -> Callable[..., Train]:
    """Settings of a run that takes a second: ``tiny(data, out, epochs, …)``."""

    def settings(data: object = None, out: Path | None = None, epochs: int | None = 1, **others: Any) -> Train:
        fixed: dict[str, Any] = {"model": "vit-nano", "config": TINY, "device": "cpu", "precision": "float32"}
        return Train(data=None if data is None else str(data), out=out, epochs=epochs, **fixed | others)

    return settings


@pytest.fixture(scope="session")
def colours(tmp_path_factory: pytest.TempPathFactory, tiny: Callable[..., Train]) -> Run:
    """A model that tells six colours apart."""
    folder = tmp_path_factory.mktemp("colours")
    data = _paint(folder / "data")
    figures = train(tiny(data, folder / "run", epochs=15))
    return Run(folder / "run", data, figures)


@pytest.fixture(scope="session")
def stripes(tmp_path_factory: pytest.TempPathFactory, tiny: Callable[..., Train]) -> Run:
    """A model that says which of three colours are in a picture, which may be all or none."""
    folder = tmp_path_factory.mktemp("stripes")
    table = paint_stripes(folder / "data", count=60, seed=0)
    figures = train(tiny(table, folder / "run", epochs=10, flip="no", augment="none"))
    return Run(folder / "run", table, figures)


def paint_stripes(folder: Path, count: int, seed: int) -> Path:
    """Pictures with up to three stripes, and a JSON Lines table that lists the colours of each."""
    folder.mkdir()
    rng = np.random.default_rng(seed)
    lines = []
    for number in range(count):
        pixels = rng.integers(0, 60, (16, 16, 3)).astype(np.uint8)
        names = [name for name in ("blue", "green", "red") if rng.random() < 0.5]
        for place, name in enumerate(("blue", "green", "red")):
            if name in names:
                pixels[:, 5 * place : 5 * place + 5] = COLOURS[name]
        Image.fromarray(pixels).save(folder / f"{number:02}.png")
        lines.append(json.dumps({"image": f"{number:02}.png", "labels": names}))
    (folder / "table.jsonl").write_text("\n".join(lines))
    return folder / "table.jsonl"


@pytest.fixture
def vitrail(capfd: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Runs a command as a person types it: ``vitrail("train", folder, "--epochs", 1)``."""

    def run(*words: object) -> Outcome:
        capfd.readouterr()
        with pytest.raises(SystemExit) as left:
            main([str(word) for word in words])
        captured = capfd.readouterr()
        return Outcome(int(left.value.code or 0), captured.out, captured.err)

    return run


@pytest.fixture
def album(paint, tmp_path):
    """Two colours, three pictures each, and a file that is none."""
    folder = paint(tmp_path / "album", ["red", "blue"], count=3, seed=3)
    (folder / "red" / "broken.png").write_bytes(b"no picture")
    (folder / "notes.txt").write_text("not a picture, and not called one")
    return folder
