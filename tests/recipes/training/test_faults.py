"""Mistakes that people make: one clear sentence, exit status 2, and nothing half-written."""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
from pathlib import Path

import pytest

from vitrail.cli.main import main
from vitrail.errors import SettingError

TINY = ("--model", "vit-nano", "--config", "width=32", "depth=2", "heads=2", "mlp=64", "--device", "cpu")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def data(paint, here):
    return paint(here / "data", ["red", "blue"], count=10)


@pytest.fixture
def refused(vitrail, here):
    """Runs a command that must end with status 2 and one sentence that holds all of ``words``, and make no run."""

    def run(*arguments: object, words: tuple[str, ...], status: int = 2) -> None:
        before = {path for path in here.rglob("*") if path.name in ("run.json", "model.json", "last", "plots")}
        said = vitrail(*arguments)
        last = said.err.splitlines()[-1]
        assert said.status == status, said.err
        assert said.out == ""
        assert "Traceback" not in said.err
        assert last.startswith("vitrail: ")
        assert last.endswith((".", "?"))
        for word in words:
            assert word in last
        after = {path for path in here.rglob("*") if path.name in ("run.json", "model.json", "last", "plots")}
        assert after == before

    return run


class TestData:
    def test_a_missing_folder(self, refused, here):
        refused("train", "nothing", words=(str(here / "nothing"), "does not exist"))

    def test_an_empty_folder(self, refused, here):
        (here / "empty").mkdir()
        refused("train", "empty", words=("empty is an empty folder",))

    def test_a_folder_of_images_without_classes(self, refused, data):
        refused("train", data / "red", words=("no class folders (images directly in it: 10)", "put the images"))

    def test_one_class(self, refused, data):
        shutil.rmtree(data / "blue")
        refused("train", data, words=("only the class 'red'", "at least two"))

    def test_a_class_with_a_single_image(self, refused, data):
        for number in range(1, 10):
            (data / "blue" / f"0{number}.png").unlink()
        refused("train", data, words=("the class 'blue' has a single image", "add images"))

    def test_a_table_without_the_column(self, refused, here):
        (here / "table.csv").write_text("image,hue\na.png,red\n")
        refused("train", "table.csv", words=("no column 'label'", "image, hue", "--label-column"))

    def test_an_unknown_format(self, refused, data):
        refused("train", data, "--format", "floder", words=("no format called 'floder'", "did you mean folder?"))

    def test_too_many_unreadable_images(self, refused, data):
        for name in ("red", "blue"):
            for number in range(4):
                (data / name / f"0{number}.png").write_bytes(os.urandom(50))
        arguments = ("train", data, *TINY, "--epochs", 1, "--out", "run")
        refused(*arguments, words=("cannot be read", "--max-unreadable"))

    def test_more_images_in_a_batch_than_there_are(self, refused, data):
        refused("train", data, *TINY, "--batch-size", 500, words=("batch size 500", "the 14 images"))


class TestSettings:
    @pytest.mark.parametrize(
        ("flag", "value"),
        [
            ("--epochs", 0),
            ("--epochs", -3),
            ("--learning-rate", -0.1),
            ("--learning-rate", "nan"),
            ("--label-smoothing", 1.5),
            ("--batch-size", 0),
            ("--workers", -1),
            ("--image-size", 0),
            ("--ema", 1),
            ("--seed", -1),
            ("--max-unreadable", 2),
        ],
    )
    def test_a_number_out_of_its_range_is_found_before_the_data_are_opened(self, refused, flag, value):
        refused("train", "nothing", flag, value, words=(f"{flag} must be", f"not {value}"))

    def test_no_data(self, refused):
        refused("train", words=("no data was given", "`vitrail train DATA`"))

    def test_an_image_size_that_the_patches_do_not_divide(self, refused, data):
        arguments = (
            "train",
            data,
            "--model",
            "vit-ti16",
            "--image-size",
            100,
            "--weights",
            "none",
            "--config",
            "patch_size=16",
        )
        refused(*arguments, words=("100x100", "not divisible by the patch size 16", "such as 96"))

    def test_an_unknown_model(self, refused, data):
        refused("train", data, "--model", "vit-mikro", words=("no model called 'vit-mikro'", "did you mean vit-micro"))

    def test_changes_that_are_none(self, refused, data):
        refused("train", data, "--config", "nonsense", words=("--config takes name=value", "not 'nonsense'"))

    def test_a_device_that_is_not_there(self, refused, data):
        refused("train", data, "--device", "tpu9", words=("device 'tpu9' is not available", "--device auto"))

    def test_sharding_without_processes(self, refused, data):
        refused("train", data, "--shard", words=("--shard needs processes", "torchrun"))

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (("train", "data", "--epoch", "3"), ("--epoch", "--epochs INT")),
            (("train", "data", "--epochs", "three"), ("--epochs", "three")),
            (("train", "data", "--augment", "wild"), ("'wild'", "'strong'")),
            (("evaluate",), ("RUN",)),
        ],
    )
    def test_flags_that_cannot_be_read_are_named(self, vitrail, arguments, words):
        said = vitrail(*arguments)
        assert (said.status, said.out) == (2, "")
        assert "Traceback" not in said.err
        for word in words:
            assert word in said.err


class TestRuns:
    @pytest.fixture
    def run(self, colours, here):
        return shutil.copytree(colours.folder, here / "run")

    def test_an_existing_run_is_not_touched(self, refused, run, data):
        before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
        refused("train", data, "--out", run, words=("already holds a run", f"--resume {run}", "--overwrite"))
        refused("train", data, "--out", run, "--overwrite", "--model", "vit-mikro", words=("vit-mikro",))
        refused("train", "nothing", "--out", run, "--overwrite", words=("does not exist",))
        refused("train", data, "--out", run, "--overwrite", *TINY, "--batch-size", 99, words=("batch size 99",))
        assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before

    def test_an_out_that_is_a_file(self, refused, here, data):
        (here / "file").write_text("mine")
        refused("train", data, *TINY, "--out", here / "file", words=("file exists and is not a run", "another --out"))
        arguments = ("train", data, *TINY, "--epochs", 1, "--out", here / "file" / "run")
        refused(*arguments, words=("cannot be written", "another --out"))
        assert (here / "file").read_text() == "mine"

    @pytest.mark.parametrize("command", ["evaluate", "predict", "explain"])
    def test_no_run(self, refused, here, data, command):
        image = [] if command == "evaluate" else [data / "red" / "00.png"]
        refused(command, here / "nothing", *image, words=("there is no run folder", "--out folder"))
        refused(command, data, *image, words=("not a finished run", "vitrail train"))

    def test_a_run_without_its_weights(self, refused, run, data):
        (run / "model.safetensors").unlink()
        refused("predict", run, data / "red" / "00.png", words=("incomplete: it has no model.safetensors", "--resume"))

    @pytest.mark.parametrize("size", [0, 5, 1000])
    def test_weights_cut_short(self, refused, run, data, size):
        os.truncate(run / "model.safetensors", size)
        refused("predict", run, data / "red" / "00.png", words=("model.safetensors is damaged or cut short", "restore"))

    @pytest.mark.parametrize("size", [0, 100, 5000])
    def test_a_state_cut_short(self, refused, run, size):
        os.truncate(run / "last" / "state.pt", size)
        refused("train", "--resume", run, words=("state.pt", "damaged or cut short", "--overwrite"))

    def test_a_run_of_a_newer_version(self, refused, run, data):
        for name in ("run.json", "model.json"):
            record = json.loads((run / name).read_text())
            (run / name).write_text(json.dumps(record | {"format": 99}))
        refused("train", "--resume", run, words=("newer Vitrail", "pip install --upgrade"))
        refused("predict", run, data / "red" / "00.png", words=("newer Vitrail", "pip install --upgrade"))

    def test_labels_that_the_model_does_not_know(self, refused, stripes, paint, here):
        data = paint(here / "other", ["red", "yellow"], count=2)
        refused("evaluate", stripes.folder, data, words=("does not know the class 'yellow'", "it knows: blue"))

    def test_going_on_with_changed_data(self, vitrail, refused, data, here):
        assert vitrail("train", data, *TINY, "--epochs", 1, "--out", "run").status == 0
        (data / "red" / "00.png").unlink()
        refused("train", "--resume", "run", words=("no longer those", "restore them"))

    def test_going_on_with_other_settings(self, refused, run):
        refused("train", "--resume", run, "--epochs", 99, words=("leave out --epochs", f"--weights {run}"))


class TestWriting:
    @pytest.fixture
    def fails(self, monkeypatch):
        """Lets the writing of a file of this name fail."""
        make = tempfile.mkstemp

        def arrange(name: str, number: int) -> None:
            def mkstemp(*, dir: Path, prefix: str, suffix: str) -> tuple[int, str]:
                if prefix == f".{name}.":
                    raise OSError(number, os.strerror(number), str(dir / name))
                return make(dir=dir, prefix=prefix, suffix=suffix)

            monkeypatch.setattr(tempfile, "mkstemp", mkstemp)

        return arrange

    @pytest.mark.parametrize("name", ["run.json", "model.json", "model.safetensors", "state.pt"])
    def test_a_disk_that_is_full_before_there_is_anything_to_go_on_from(self, refused, data, here, fails, name):
        fails(name, errno.ENOSPC)
        arguments = ("train", data, *TINY, "--epochs", 1, "--out", "run")
        refused(*arguments, words=("the disk is full", name, "free some space"))
        assert not (here / "run").exists()

    def test_a_disk_that_is_full_when_all_is_learned(self, vitrail, data, here, fails, monkeypatch):
        fails("confusion.png", errno.ENOSPC)
        said = vitrail("train", data, *TINY, "--epochs", 1, "--out", "run")
        assert said.status == 2
        assert "the disk is full" in said.err.splitlines()[-1]
        monkeypatch.undo()
        monkeypatch.chdir(here)
        assert vitrail("train", "--resume", "run").status == 0
        assert (here / "run" / "plots" / "confusion.png").is_file()

    def test_a_place_that_may_not_be_written(self, refused, data, here, fails):
        fails("run.json", errno.EACCES)
        arguments = ("train", data, *TINY, "--epochs", 1, "--out", "run")
        refused(*arguments, words=("cannot be written", "permission denied", "another --out"))

    def test_a_place_that_may_not_be_read(self, refused, colours, data, monkeypatch):
        def refuse(*_, **__):
            raise PermissionError(errno.EACCES, "Permission denied", "model.json")

        monkeypatch.setattr("pathlib.Path.read_text", refuse)
        refused("predict", colours.folder, data / "red" / "00.png", words=("model.json", "permission denied", "access"))


def test_a_loss_that_is_not_finite_is_a_failure_and_no_mistake(vitrail, data):
    arguments = ("train", data, *TINY, "--epochs", 3, "--learning-rate", 1e6, "--precision", "float32", "--clip", 0)
    said = vitrail(*arguments)
    assert said.status == 1
    last = said.err.splitlines()[-1]
    assert last.startswith("vitrail: training diverged at step ")
    for word in ("learning rate", ".png", "try a smaller --learning-rate"):
        assert word in last


def test_debug_shows_where_an_error_came_from():
    with pytest.raises(SettingError, match="--epochs"):
        main(["train", "data", "--epochs", "0", "--debug"])
