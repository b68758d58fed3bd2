"""The metrics file: what is written, what resuming cuts off, and a disk without room."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

from vitrail.errors import DiskFull, SettingError
from vitrail.train import log as log_module
from vitrail.train.log import MetricsLog, read_log

RECORDS: list[dict[str, Any]] = [
    {"kind": "train", "step": 10, "epoch": 1, "loss": 2.5},
    {"kind": "train", "step": 20, "epoch": 1, "loss": 2.25},
    {"kind": "validation", "step": 20, "epoch": 1, "top1": 0.75, "nll": 0.5},
]


def write(path: Path, records: list[dict[str, Any]], size: int = 0) -> int:
    log = MetricsLog(path, size)
    for record in records:
        log.write(record)
    size = log.sync()
    log.close()
    return size


def test_each_record_is_a_line_of_json(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    size = write(path, RECORDS)
    assert size == path.stat().st_size
    lines = path.read_text(encoding="utf-8").split("\n")
    assert [json.loads(line) for line in lines[:-1]] == RECORDS
    assert lines[-1] == ""
    assert read_log(path) == RECORDS


def test_a_record_can_be_read_at_once(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "metrics.jsonl")
    log.write(RECORDS[0])
    assert read_log(log.path) == RECORDS[:1]
    log.close()


def test_resuming_cuts_off_what_will_be_repeated(tmp_path: Path) -> None:
    whole, path = tmp_path / "whole.jsonl", tmp_path / "metrics.jsonl"
    write(whole, RECORDS)
    size = write(path, RECORDS[:1])
    write(path, [{"kind": "train", "step": 99}], size)  # killed after these; and while it wrote a line:
    with path.open("a") as file:
        file.write('{"kind": "tr')
    write(path, RECORDS[1:], size)
    assert path.read_bytes() == whole.read_bytes()


def test_a_new_run_begins_with_an_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    write(path, RECORDS)
    write(path, RECORDS[:1])
    assert read_log(path) == RECORDS[:1]


@pytest.mark.parametrize("left", [0, 1, None])
def test_records_that_were_lost_are_not_replaced_by_zero_bytes(tmp_path: Path, left: int | None) -> None:
    """Somebody has removed or emptied the file; training goes on with what there is."""
    path = tmp_path / "metrics.jsonl"
    size = write(path, RECORDS)
    write(path, RECORDS[:left]) if left is not None else path.unlink()
    write(path, RECORDS[2:], size)
    assert read_log(path) == RECORDS[: left or 0] + RECORDS[2:]


def test_a_full_disk_has_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = MetricsLog(tmp_path / "metrics.jsonl")

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(DiskFull, match=r"metrics\.jsonl could not be written"):
        log.sync()
    log.close()
    monkeypatch.setattr(os, "truncate", fail)
    with pytest.raises(DiskFull, match=r"metrics\.jsonl could not be written"):
        MetricsLog(log.path)


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="needs /dev/full, which Linux has")
def test_a_disk_that_is_really_full_has_a_name_when_writing_and_when_closing(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "metrics.jsonl")
    log.file.close()
    log.file = Path("/dev/full").open("a", encoding="utf-8")  # noqa: SIM115
    with pytest.raises(DiskFull):
        log.write(RECORDS[0])
    with pytest.raises(DiskFull):
        log.close()
    assert log.file.closed


def test_numbers_become_tensorboard_scalars_and_repeated_steps_are_purged(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = tmp_path / "tensorboard"
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(path, 0, events)
    log.write(RECORDS[0])
    size = log.sync()
    log.write({"kind": "train", "step": 20, "epoch": 1, "loss": 99.0})  # is lost, as step 10 was the last one saved
    log.close()
    log = MetricsLog(path, size, events, step=11)
    for record in RECORDS[1:]:
        log.write(record)
    log.close()

    read = EventAccumulator(str(events))
    read.Reload()
    assert sorted(read.Tags()["scalars"]) == ["train/loss", "validation/nll", "validation/top1"]
    assert [(event.step, event.value) for event in read.Scalars("train/loss")] == [(10, 2.5), (20, 2.25)]
    assert [(event.step, event.value) for event in read.Scalars("validation/top1")] == [(20, 0.75)]


def test_tensorboard_that_is_not_installed_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "torch.utils.tensorboard", None)
    with pytest.raises(SettingError, match=r"pip install 'vitrail\[log\]'"):
        log_module._event_writer(tmp_path, 0)
