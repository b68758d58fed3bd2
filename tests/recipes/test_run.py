from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest

from vitrail import atomic
from vitrail.data.dataset import open_dataset
from vitrail.errors import DiskFull, RunError, SettingError, TrainingDiverged
from vitrail.recipes import run
from vitrail.train.state import STATE

RECORD = {"settings": {}, "choice": {}, "data": {}}


def test_a_new_folder_begins_with_its_record(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["vitrail", "train", "photos"])
    run.start(tmp_path / "runs" / "new", RECORD, overwrite=False)
    record = run.read(tmp_path / "runs" / "new")
    assert record["command"] == ["vitrail", "train", "photos"]
    assert record["format"] == 1
    assert record["versions"].keys() == {"vitrail", "python", "torch", "jpeg", "machine"}


def test_an_empty_folder_may_be_used(tmp_path):
    run.start(tmp_path, RECORD, overwrite=False)
    assert (tmp_path / "run.json").is_file()


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_is_no_run_is_never_replaced(tmp_path, overwrite):
    (tmp_path / "thesis.txt").write_text("years of work")
    for folder in (tmp_path, tmp_path / "thesis.txt"):
        with pytest.raises(RunError, match="is not a run of Vitrail; choose another --out"):
            run.start(folder, RECORD, overwrite=overwrite)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_a_run_is_replaced_only_if_asked(tmp_path):
    run.start(tmp_path / "run", RECORD, overwrite=False)
    (tmp_path / "run" / "model.json").touch()
    with pytest.raises(RunError, match="already holds a run"):
        run.start(tmp_path / "run", RECORD, overwrite=False)
    assert (tmp_path / "run" / "model.json").exists()
    run.start(tmp_path / "run", RECORD, overwrite=True)
    assert not (tmp_path / "run" / "model.json").exists()


def test_a_path_through_a_file_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match=r"cannot be written to .*file/run: .*; choose another --out"):
        run.start(tmp_path / "file" / "run", RECORD, overwrite=False)


def test_a_full_disk_leaves_no_folder(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    monkeypatch.setattr(atomic.os, "fsync", full)
    with pytest.raises(DiskFull, match=r"run\.json could not be written"):
        run.start(tmp_path / "run", RECORD, overwrite=False)
    assert not (tmp_path / "run").exists()


class TestRemovedAfterMistake:
    def test_a_mistake_leaves_nothing(self, tmp_path):
        run.start(tmp_path / "run", RECORD, overwrite=False)
        with pytest.raises(SettingError), run.removed_after_mistake(tmp_path / "run"):
            raise SettingError("no.")
        assert not (tmp_path / "run").exists()

    def test_what_can_be_gone_on_with_stays(self, tmp_path):
        (tmp_path / "run" / STATE).parent.mkdir(parents=True)
        (tmp_path / "run" / STATE).touch()
        with pytest.raises(SettingError), run.removed_after_mistake(tmp_path / "run"):
            raise SettingError("no.")
        assert (tmp_path / "run" / STATE).exists()

    def test_a_failure_is_left_to_be_looked_at(self, tmp_path):
        with pytest.raises(TrainingDiverged), run.removed_after_mistake(tmp_path):
            raise TrainingDiverged("NaN.")
        assert tmp_path.exists()


class TestRead:
    def test_no_folder(self, tmp_path):
        with pytest.raises(RunError, match="there is no run folder"):
            run.read(tmp_path / "nothing")

    def test_no_run(self, tmp_path):
        with pytest.raises(RunError, match=r"is not a run of Vitrail: it has no run\.json"):
            run.read(tmp_path)

    @pytest.mark.parametrize("text", ["", "{", "[]", "3", "{}", '{"format": "new"}', '{"format": 1}', "\x00"])
    def test_a_damaged_record(self, tmp_path, text):
        (tmp_path / "run.json").write_text(text)
        with pytest.raises(RunError, match=r"run\.json is damaged"):
            run.read(tmp_path)

    def test_a_newer_version(self, tmp_path):
        (tmp_path / "run.json").write_text(json.dumps({"format": run.FORMAT + 1, "anything": "else"}))
        with pytest.raises(RunError, match="newer Vitrail; update with"):
            run.read(tmp_path)


class TestFingerprint:
    @pytest.fixture
    def data(self, paint, tmp_path):
        return paint(tmp_path / "data", ["red", "blue"], count=10)

    def test_the_same_data_have_the_same(self, data):
        assert run.fingerprint(open_dataset(str(data))) == run.fingerprint(open_dataset(str(data)))

    def test_it_tells_another_label_another_image_and_another_split(self, data):
        seen = {run.fingerprint(open_dataset(str(data))), run.fingerprint(open_dataset(str(data), seed=1))}
        (data / "red" / "00.png").rename(data / "red" / "99.png")
        seen.add(run.fingerprint(open_dataset(str(data))))
        (data / "red" / "99.png").rename(data / "blue" / "99.png")
        seen.add(run.fingerprint(open_dataset(str(data))))
        (data / "red").rename(data / "rose")
        seen.add(run.fingerprint(open_dataset(str(data))))
        assert len(seen) == 5


def test_a_path_is_stored_in_full_and_a_word_as_it_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits").mkdir()
    assert run.absolute("photos/cats") == str(tmp_path / "photos" / "cats")
    assert run.absolute("digits") == "digits"
    assert run.absolute("shapes:300") == "shapes:300"


def test_what_a_kill_during_the_first_write_leaves_does_not_stand_in_the_way(tmp_path):
    (tmp_path / ".run.json.abcdefgh.json").touch()
    run.refuse_existing(tmp_path, overwrite=False)
    (tmp_path / "notes.txt").touch()
    with pytest.raises(RunError, match="is not a run"):
        run.refuse_existing(tmp_path, overwrite=True)
