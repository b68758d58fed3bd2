from __future__ import annotations

import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import vitrail as package
from vitrail.data.loader import load_batches
from vitrail.errors import Interrupted, RunError, SettingError
from vitrail.recipes import run
from vitrail.recipes.resume import as_started
from vitrail.recipes.run import default_folder
from vitrail.recipes.training import start
from vitrail.recipes.training.choose import choose, find_pretrained
from vitrail.recipes.training.settings import Train
from vitrail.recipes.training.start import build_task, open_data, started, training_batches, with_full_paths
from vitrail.recipes.training.train import plan, train
from vitrail.train.log import read_log
from vitrail.weights.saved import load, read_weights

CPU = torch.device("cpu")


def begin(settings: Train) -> start.Start:
    return started(settings, CPU, torch.float32)


def test_six_colours_are_learned(colours):
    assert colours.figures["top1"] >= 0.9
    assert colours.figures["images"] == 24  # the fifth of 120 that was held back
    assert colours.figures["split"] == "test"
    assert colours.figures["run"] == str(colours.folder)
    assert colours.figures["seconds"] > 0


def test_a_run_holds_all_that_predicting_and_resuming_need(colours):
    files = {path.relative_to(colours.folder).as_posix() for path in colours.folder.rglob("*") if path.is_file()}
    plots = {f"plots/{name}.png" for name in ("curves", "confusion", "reliability", "per_class")}
    written = {"run.json", "model.json", "model.safetensors", "metrics.jsonl", "evaluation.json", "last/state.pt"}
    assert files == written | plots
    for plot in plots:
        with Image.open(colours.folder / plot) as picture:
            picture.verify()
    assert json.loads((colours.folder / "evaluation.json").read_text())["top1"] == colours.figures["top1"]
    kinds = Counter(record["kind"] for record in read_log(colours.folder / "metrics.jsonl"))
    assert kinds["validation"] == 15


def test_the_record_tells_how_the_run_came_about(colours):
    record = json.loads((colours.folder / "run.json").read_text())
    assert record["format"] == 1
    assert record["settings"]["data"] == str(colours.data)
    assert record["settings"]["seed"] == 0
    assert record["choice"]["epochs"] == 15
    assert record["choice"]["learning_rate"] == 0.001  # left open, and resolved
    assert record["choice"]["batch_size"] == 32
    assert (record["device"], record["precision"]) == ("cpu", "float32")
    assert record["versions"]["torch"] == torch.__version__
    assert record["versions"]["vitrail"] == package.__version__
    assert record["data"]["images"] == {"train": 84, "validation": 12, "test": 24}
    assert record["data"]["leaks"] == []
    assert isinstance(record["command"], list)


def test_the_order_of_the_classes_is_kept_with_the_model(colours):
    stored = json.loads((colours.folder / "model.json").read_text())["classes"]
    assert stored == ["blue", "cyan", "green", "magenta", "red", "yellow"]
    task = load(colours.folder)
    for name in stored:
        guesses = [task.predict(colours.data / name / f"{number:02}.png")[0].label for number in range(20)]
        assert Counter(guesses).most_common(1)[0][0] == name


def test_a_model_of_many_labels_is_told_by_its_mean_average_precision(stripes):
    assert stripes.figures["map"] > 0.9
    assert "top1" not in stripes.figures
    assert json.loads((stripes.folder / "model.json").read_text())["many_labels"] is True


def test_it_says_how_the_data_were_parted_what_was_chosen_and_where_the_run_is(vitrail, paint, tmp_path):
    data = paint(tmp_path / "data", ["red", "blue"], count=10)
    said = vitrail(
        "train", data, "--model", "vit-nano", "--config", "depth=1", "--epochs", 1, "--out", tmp_path / "run"
    )
    assert said.status == 0
    assert said.out == ""
    assert "70 % train, 10 % validation, 20 % test" in said.err
    assert "14 training images of about 16 pixels, 2 classes: vit-nano at 16 pixels for 1 epoch in" in said.err
    assert "best accuracy on validation" in said.err
    assert f"the run is in {tmp_path / 'run'}" in said.err


def test_with_json_the_only_thing_on_standard_output_is_one_document(vitrail, paint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    paint(tmp_path / "my data", ["red", "blue"], count=10)
    said = vitrail("train", "my data", "--model", "vit-nano", "--config", "depth=1", "--epochs", 1, "--json")
    figures = json.loads(said.out)
    assert figures["run"] == str(Path("runs/my-data-vit-nano"))
    assert figures["images"] == 4
    assert Path(figures["run"], "model.safetensors").is_file()


@pytest.mark.parametrize(
    ("data", "folder"),
    [("/a/photos", "photos-m"), ("/a/labels.csv", "labels-m"), ("shapes:300", "shapes-300-m"), ("digits", "digits-m")],
)
def test_the_folder_of_a_run_has_a_name_that_every_file_system_takes(data, folder):
    assert default_folder(data, "m") == Path("runs", folder)


def test_a_broken_image_is_named_and_left_out(vitrail, tiny, paint, tmp_path):
    data = paint(tmp_path / "data", ["red", "blue"], count=20)
    (data / "blue" / "00.png").write_bytes(b"no picture")
    words = ("--model", "vit-nano", "--config", "depth=1", "--epochs", 2, "--max-unreadable", 0.5)
    said = vitrail("train", data, *words, "--out", tmp_path / "run")
    assert said.status == 0
    assert said.err.count(f"left out: cannot read image {data / 'blue' / '00.png'}") == 1  # not in every epoch


class TestLeaks:
    @pytest.fixture
    def leaky(self, paint, tmp_path):
        """Given splits, and one image of train again in test."""
        for seed, split in enumerate(("train", "validation", "test")):
            paint(tmp_path / "leaky" / split, ["red", "blue"], count=6, seed=seed)
        shutil.copy(tmp_path / "leaky/train/red/03.png", tmp_path / "leaky/test/blue/again.png")
        return tmp_path / "leaky"

    def test_the_same_bytes_in_two_splits_are_named_in_one_line(self, leaky, tiny, tmp_path, capsys):
        begin(tiny(leaky, tmp_path / "run"))
        lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("Leak")]
        assert lines == [f"Leak: 1 image of test is also in train: {leaky / 'test/blue/again.png'}."]
        assert json.loads((tmp_path / "run" / "run.json").read_text())["data"]["leaks"] == [
            f"1 image of test is also in train: {leaky / 'test/blue/again.png'}"
        ]

    def test_files_of_different_sizes_are_not_read(self, paint, tmp_path, tiny, monkeypatch):
        data = tmp_path / "data"
        for number, split in enumerate(("train", "validation", "test")):
            paint(data / split, ["red", "blue"], count=3)
            for file in data.glob(f"{split}/*/*.png"):
                file.write_bytes(file.read_bytes() + bytes(10_000 * number))  # a size of its own in each split
        dataset = open_data(tiny(data))
        monkeypatch.setattr(type(dataset.splits["train"]), "encoded", lambda *_: pytest.fail("a file was read"))
        assert start.find_leaks(dataset) == []

    def test_of_very_many_images_it_says_that_it_has_not_looked(self, leaky, tiny, monkeypatch, capsys):
        monkeypatch.setattr(start, "MOST_COMPARED", 24)
        assert start.find_leaks(open_data(tiny(leaky))) == []
        assert "vitrail info" in capsys.readouterr().err

    def test_scenes_drawn_on_demand_are_not_compared(self, tiny, monkeypatch):
        dataset = open_data(tiny("shapes:12"))
        monkeypatch.setattr(start, "leak_notes", lambda _: pytest.fail("scenes were compared"))
        assert start.find_leaks(dataset) == []


class TestBalance:
    @pytest.fixture
    def long_tail(self, paint, tmp_path):
        for split in ("train", "validation"):
            paint(tmp_path / "data" / split, ["blue"], count=30, seed=1)
            paint(tmp_path / "data" / split, ["red"], count=6, seed=2)
        return tmp_path / "data"

    def test_sampling_draws_every_class_equally_often(self, long_tail, tiny):
        settings = tiny(long_tail, balance="sampling", batch_size=36)
        dataset = open_data(settings)
        choice = choose(settings, dataset)
        batches = training_batches(settings, dataset, choice, build_task(settings, dataset, choice))
        drawn = sum(batch.labels.sum(dim=0) for batch in load_batches(batches, 0, 20, workers=0))
        assert drawn.sum() == 720
        assert drawn[1] / 720 == pytest.approx(0.5, abs=0.1)  # the red ones are a sixth of the images

    def test_weights_let_every_class_count_the_same(self, long_tail, tiny):
        settings = tiny(long_tail, balance="weights")
        dataset = open_data(settings)
        task = build_task(settings, dataset, choose(settings, dataset))
        assert task.class_weights is not None
        weights = task.class_weights.numpy()
        np.testing.assert_allclose(weights * [30, 6], [18, 18])
        assert "class_weights" not in task.state_dict()  # a matter of training, not of the model

    def test_without_it_each_image_counts_once(self, long_tail, tiny):
        settings = tiny(long_tail)
        dataset = open_data(settings)
        assert build_task(settings, dataset, choose(settings, dataset)).class_weights is None


class TestWeights:
    def test_the_same_classes_take_over_the_whole_model(self, colours, tiny):
        settings = tiny(colours.data, weights=str(colours.folder), model="auto", config=())
        dataset = open_data(settings)
        pretrained = find_pretrained(settings, dataset)
        choice = choose(settings, dataset, pretrained)
        assert choice.model == "vit-nano"
        taken = build_task(settings, dataset, choice, pretrained).state_dict()
        stored = read_weights(colours.folder / "model.safetensors")
        assert taken.keys() == stored.keys()
        assert all(torch.equal(taken[name], stored[name]) for name in stored)

    def test_other_classes_take_over_the_backbone(self, colours, tiny, paint, tmp_path):
        data = paint(tmp_path / "data", ["red", "yellow"])
        settings = tiny(data, weights=str(colours.folder), model="auto", config=())
        dataset = open_data(settings)
        pretrained = find_pretrained(settings, dataset)
        taken = build_task(settings, dataset, choose(settings, dataset, pretrained), pretrained).state_dict()
        stored = read_weights(colours.folder / "model.safetensors")
        backbone = [name for name in stored if name.startswith("backbone.")]
        assert backbone
        assert all(torch.equal(taken[name], stored[name]) for name in backbone)
        assert taken["head.linear.weight"].shape == (2, 32)

    def test_a_model_of_another_shape_is_refused(self, colours, tiny):
        settings = tiny(colours.data, weights=str(colours.folder), config=("width=64", "depth=2", "heads=2", "mlp=64"))
        dataset = open_data(settings)
        with pytest.raises(SettingError, match=r"cannot be made into those of a model with .*width=64"):
            choose(settings, dataset, find_pretrained(settings, dataset))


def test_plain_gradient_descent_with_events_for_tensorboard(paint, tiny, tmp_path):
    pytest.importorskip("tensorboard", reason="events are written by TensorBoard's own package")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    data = paint(tmp_path / "data", ["red", "blue"])
    train(tiny(data, tmp_path / "run", optimizer="sgd", log="tensorboard", ema=0.9, accumulate=2))
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    assert {"train/loss", "train/learning_rate", "validation/top1"} <= set(events.Tags()["scalars"])
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["choice"]["learning_rate"] == 0.02


def test_the_plan_counts_in_steps(tiny, colours):
    settings = tiny(colours.data, epochs=7, warmup_epochs=0.5, patience=3)
    steps = plan(settings, choose(settings, open_data(settings)), steps_per_epoch=20)
    assert (steps.steps, steps.steps_per_epoch, steps.warmup, steps.patience) == (140, 20, 10, 3)
    assert steps.log_every == 2


@pytest.fixture(scope="module")
def once(paint, tiny, tmp_path_factory):
    """The folder where a run was started with relative paths."""
    folder = tmp_path_factory.mktemp("resume")
    paint(folder / "data", ["red", "blue"], count=10)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        train(tiny("data", Path("run")))
    return folder


class TestResume:
    @pytest.fixture
    def finished(self, once, tmp_path):
        """A copy of its run; the data stay where they were."""
        return shutil.copytree(once / "run", tmp_path / "run")

    def test_a_run_started_with_relative_paths_goes_on_from_anywhere(self, finished, tmp_path, monkeypatch):
        before = json.loads((finished / "evaluation.json").read_text())
        monkeypatch.chdir(tmp_path)
        figures = train(Train(resume=finished))
        assert figures["nll"] == before["nll"]

    def test_everything_is_as_it_was_started(self, finished, once, tiny):
        settings = as_started(Train(resume=finished, workers=0, save_seconds=1.0, json=True), "train", with_full_paths)
        assert (settings.workers, settings.save_seconds, settings.json) == (0, 1.0, True)
        started_with = tiny(once / "data", epochs=1)
        assert replace(settings, resume=None, out=None, workers=None, save_seconds=60.0, json=False) == started_with

    def test_a_number_format_chosen_for_the_machine_stays(self, finished):
        record = run.read(finished)
        record["settings"]["precision"], record["precision"] = "auto", "bfloat16"
        run.write(finished, record)
        assert as_started(Train(resume=finished), "train", with_full_paths).precision == "bfloat16"

    def test_flags_may_be_given_again(self, once, tiny, monkeypatch):
        monkeypatch.chdir(once)
        assert as_started(tiny("data", Path("run"), resume=Path("run")), "train", with_full_paths).epochs == 1

    def test_other_flags_are_refused_by_name(self, finished):
        with pytest.raises(SettingError, match="leave out DATA, --batch-size, or start a new run"):
            as_started(Train(resume=finished, data="elsewhere", batch_size=3), "train", with_full_paths)

    def test_changed_data_are_refused(self, finished, once):
        record = run.read(finished)
        run.write(finished, record | {"settings": record["settings"] | {"data": str(once / "data"), "seed": 1}})
        with pytest.raises(RunError, match="no longer those"):
            train(Train(resume=finished))  # another seed parts them in another way

    @pytest.mark.parametrize(
        ("part", "value"),
        [
            ("settings", {}),
            ("settings", {"config": [], "colour": 1}),
            ("choice", {"model": "vit-nano"}),
            ("data", None),
        ],
    )
    def test_a_damaged_record_is_refused(self, finished, part, value):
        run.write(finished, run.read(finished) | {part: value})
        with pytest.raises(RunError, match=r"run\.json is damaged"):
            train(Train(resume=finished))


def test_who_stops_it_is_told_how_to_go_on(paint, tiny, tmp_path, monkeypatch):
    def stop(*_, **__):
        raise Interrupted("stopped after step 3 of 9; all is saved.", 2)

    monkeypatch.setattr("vitrail.recipes.training.train.fit", stop)
    settings = tiny(paint(tmp_path / "data", ["red", "blue"]), tmp_path / "run")
    with pytest.raises(Interrupted, match=f"Go on with: vitrail train --resume {tmp_path / 'run'}") as stopped:
        train(settings)
    assert stopped.value.exit_status == 130
    assert (tmp_path / "run" / "run.json").is_file()


def test_too_little_memory_names_the_remedy_and_leaves_nothing(paint, tiny, tmp_path, monkeypatch):
    def too_large(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr("vitrail.recipes.training.train.fit", too_large)
    settings = tiny(paint(tmp_path / "data", ["red", "blue"]), tmp_path / "run", batch_size=8)
    with pytest.raises(SettingError, match=r"a batch of 8 images does not fit .* --accumulate"):
        train(settings)
    assert not (tmp_path / "run").exists()


def test_a_run_is_replaced_only_when_asked(paint, tiny, tmp_path):
    data = paint(tmp_path / "data", ["red", "blue"])
    begin(tiny(data, tmp_path / "run"))
    (tmp_path / "run" / "old").touch()
    with pytest.raises(RunError, match=r"already holds a run; go on with --resume .*, replace it with --overwrite"):
        begin(tiny(data, tmp_path / "run"))
    assert (tmp_path / "run" / "old").exists()
    begin(tiny(data, tmp_path / "run", overwrite=True))
    assert not (tmp_path / "run" / "old").exists()
