"""Next pixel as a person has it: learn, go on after a stop, measure, probe, train on, paint and complete."""

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vitrail.cli.main import main
from vitrail.errors import SettingError
from vitrail.objectives import MaskedPixel, NextPixel
from vitrail.recipes.config import parsed_changes
from vitrail.weights.load import load

SMALL = ["--config", "width=32", "depth=2", "heads=2", "mlp=64", "image_size=8,8"]


def answer(capsys, *words):
    """What a command prints as JSON."""
    with pytest.raises(SystemExit) as left:
        main([*map(str, words), "--json", "--device", "cpu"])
    assert left.value.code == 0
    return json.loads(capsys.readouterr().out)


def refused(capsys, *words):
    """The sentence that a command leaves with."""
    with pytest.raises(SystemExit) as left:
        main([*map(str, words), "--device", "cpu"])
    assert left.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]


def paint(folder: Path, count: int = 24) -> Path:
    """Pictures of stripes, upright ones and lying ones, in folders by class; each of two colours of a few."""
    rng = np.random.default_rng(0)
    colours = np.array([[20, 20, 20], [230, 40, 40], [40, 60, 220], [240, 240, 230]], np.uint8)
    for lying, name in enumerate(("upright", "lying")):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            first, second = rng.choice(4, 2, replace=False)
            stripes = colours[np.where(np.arange(8) // 2 % 2, first, second)]
            image = np.repeat(stripes[:, None] if lying else stripes[None], 8, axis=1 if lying else 0)
            Image.fromarray(np.ascontiguousarray(image)).save(folder / name / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def stripes(tmp_path_factory):
    return paint(tmp_path_factory.mktemp("stripes"))


@pytest.fixture(scope="module")
def learned(stripes, tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "next"
    words = ["pretrain", stripes, "--objective", "next-pixel", *SMALL, "--steps", 120, "--batch-size", 16]
    with pytest.raises(SystemExit) as left:
        main([*map(str, words), "--learning-rate", "3e-3", "--out", str(out), "--device", "cpu", "--workers", "0"])
    assert left.value.code == 0
    return out


def test_the_palette_has_the_images_colours_and_the_loss_falls(learned):
    learner = load(learned)
    assert isinstance(learner, NextPixel)
    assert learner.backbone.config.colours == 4
    figures = json.loads((learned / "evaluation.json").read_text())
    assert figures["loss"] < 0.3  # of 1.39: what stripes there are shows in the first rows


def test_images_from_nothing_are_of_the_palette_and_of_the_seed(learned, tmp_path, capsys):
    entries = answer(capsys, "generate", learned, "--count", 5, "--out", tmp_path / "a.png")
    places = [(entry["row"], entry["column"], entry["image"], entry["error"]) for entry in entries]
    assert places == [
        (0, 0, None, None),
        (0, 1, None, None),
        (0, 2, None, None),
        (1, 0, None, None),
        (1, 1, None, None),
    ]
    sheet = np.array(Image.open(tmp_path / "a.png"))
    assert sheet.shape == (2 * 100 + 4, 3 * 100 + 4, 3)  # tiles of 96 pixels, and 4 between them
    seen = {tuple(colour) for colour in sheet.reshape(-1, 3).tolist()}
    assert seen <= {(20, 20, 20), (230, 40, 40), (40, 60, 220), (240, 240, 230), (255, 255, 255)}
    for seed, same in ((0, True), (1, False)):
        answer(capsys, "generate", learned, "--count", 5, "--seed", seed, "--out", tmp_path / "b.png")
        assert np.array_equal(np.array(Image.open(tmp_path / "b.png")), sheet) == same


def test_lower_halves_are_painted_below_what_is_given(learned, stripes, tmp_path, capsys):
    given = [stripes / "upright" / "0.png", stripes / "lying" / "1.png"]
    (tmp_path / "broken.png").write_bytes(b"nothing")
    words = ["generate", learned, *given, tmp_path / "broken.png", "--count", 2, "--temperature", 0]
    entries = answer(capsys, *words, "--out", tmp_path / "sheet.png")
    assert [(entry["image"], entry["row"], entry["column"]) for entry in entries] == [
        (str(given[0]), 0, 2),
        (str(given[0]), 0, 3),
        (str(given[1]), 1, 2),
        (str(given[1]), 1, 3),
        (str(tmp_path / "broken.png"), None, None),
    ]
    assert entries[-1]["error"]
    sheet = np.array(Image.open(tmp_path / "sheet.png"))
    tiles = [[sheet[4 + r * 100 :, 4 + c * 100 :][:96:12, :96:12] for c in range(4)] for r in range(2)]
    for row, path in zip(tiles, given, strict=True):
        original = np.array(Image.open(path))
        assert np.array_equal(row[0], original)
        assert np.array_equal(row[1][:4], original[:4])
        assert (row[1][4:] == 128).all()
        assert np.array_equal(row[2][:4], original[:4])
        assert np.array_equal(row[2], row[3])  # nothing is left to chance
    assert np.array_equal(tiles[0][2], np.array(Image.open(given[0])))  # upright stripes go on, whatever they are


def test_a_stopped_run_goes_on_to_the_same_end_with_the_palette_it_has(stripes, tmp_path, capsys, monkeypatch):
    words = ["pretrain", stripes, "--objective", "masked-pixel", *SMALL, "--batch-size", 8, "--workers", 0]
    whole = answer(capsys, *words, "--steps", 6, "--out", tmp_path / "whole")

    def stop(self, done):
        if done == 0.5:
            os.kill(os.getpid(), signal.SIGINT)

    started = [*map(str, words), "--steps", "6", "--out", str(tmp_path / "parted"), "--device", "cpu"]
    with monkeypatch.context() as half_way:
        half_way.setattr(MaskedPixel, "after_step", stop)
        with pytest.raises(SystemExit) as left:
            main(started)
    assert left.value.code == 130
    monkeypatch.setattr("vitrail.objectives.pixels.fit_palette", lambda *_: np.zeros((4, 3), np.float32))
    again = answer(capsys, "pretrain", "--resume", tmp_path / "parted")
    assert again["loss"] == whole["loss"]
    learner = load(tmp_path / "parted")
    assert not learner.backbone.config.causal
    assert learner.backbone.palette.equal(load(tmp_path / "whole").backbone.palette)


def test_a_layer_is_chosen_for_the_probe(learned, stripes, capsys):
    words = ["evaluate", learned, stripes, "--probe", "linear", "--precision", "float32"]
    found = {layer: answer(capsys, *words, "--config", f"feature_layer={layer}")["top1"] for layer in (0, 1, 2)}
    assert answer(capsys, *words)["top1"] == found[1]  # the middle
    assert found[0] < found[1] >= 0.8  # colours do not tell which way stripes run
    assert "layer 0 to 2, not 7" in refused(capsys, *words, "--config", "feature_layer=7")
    assert "cannot be made into" in refused(capsys, *words, "--config", "width=16")


def test_a_classifier_is_trained_on_it(learned, stripes, tmp_path, capsys):
    words = ["train", stripes, "--weights", learned, "--epochs", 2, "--batch-size", 8, "--workers", 0]
    answer(capsys, *words, "--out", tmp_path / "run")
    task = load(tmp_path / "run")
    kept, before = task.backbone.state_dict(), load(learned).backbone.state_dict()
    assert (kept["blocks.1.mlp.fc1.weight"] == before["blocks.1.mlp.fc1.weight"]).all()  # behind what is read
    assert (kept["blocks.0.mlp.fc1.weight"] != before["blocks.0.mlp.fc1.weight"]).any()


def test_grey_images_have_16_shades_unless_others_are_asked_for(tmp_path, capsys):
    rng = np.random.default_rng(0)
    data = tmp_path / "grey"
    data.mkdir()
    for number in range(12):
        Image.fromarray(rng.integers(256, size=(8, 8), dtype=np.uint8)).save(data / f"{number}.png")
    words = ["pretrain", data, "--objective", "next-pixel", *SMALL]
    for more, colours in (([], 16), (["colours=20"], 20)):
        out = tmp_path / f"run{colours}"
        answer(capsys, *words, *more, "--steps", 1, "--batch-size", 4, "--workers", 0, "--out", out)
        config = load(out).backbone.config
        assert (config.channels, config.colours) == (1, colours)


def test_bad_input(learned, stripes, tmp_path, capsys):
    pretrain = ["pretrain", stripes, "--out", tmp_path / "out"]
    assert "next-pixel" in refused(capsys, *pretrain, "--objective", "next-pixel", "--model", "vit-nano")
    assert "nothing that --options could set" in refused(
        capsys, *pretrain, "--objective", "next-pixel", "--options", "mask_ratio=0.5"
    )
    assert "above 0 and below 1" in refused(
        capsys, *pretrain, "--objective", "masked-pixel", "--options", "mask_ratio=1", *SMALL
    )
    assert "leave out --prompt" in refused(capsys, "generate", learned, "--prompt", "a cat")
    assert "there is no image at" in refused(capsys, "generate", learned, tmp_path / "none*.png")
    (tmp_path / "broken.png").write_bytes(b"nothing")
    assert "none of the given images" in refused(capsys, "generate", learned, tmp_path / "broken.png")
    assert not (tmp_path / "out").exists()


def test_an_objective_without_options_says_so():
    with pytest.raises(SettingError, match="nothing that --options could set here"):
        parsed_changes(NextPixel.Options, ("a=1",), "--options")
