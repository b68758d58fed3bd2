"""What training measured: one JSON object a line, the same bytes for the same run; TensorBoard events if asked for."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from vitrail.atomic import disk_errors
from vitrail.errors import SettingError


class MetricsLog:
    """Appends records to ``metrics.jsonl``; resumed training cuts off what was written after its checkpoint.

    Records hold no times, so that two runs of one seed can be compared byte for byte.

    Args:
        path: the file.
        size: how many bytes of it count; what comes after was written by steps that will be repeated.
        tensorboard: a folder for TensorBoard events, or None.
        step: the step at which training goes on.
    """

    def __init__(self, path: Path, size: int = 0, tensorboard: Path | None = None, step: int = 0) -> None:
        self.path = path
        with disk_errors(path):
            path.touch()
            os.truncate(path, min(size, path.stat().st_size))  # to a greater size it would pad with zero bytes
            self.file = path.open("a", encoding="utf-8")
        self.events = None if tensorboard is None else _event_writer(tensorboard, step)

    def write(self, record: dict[str, Any]) -> None:
        """Append one record; every number in it also becomes a TensorBoard scalar at the record's ``step``."""
        with disk_errors(self.path):
            self.file.write(json.dumps(record) + "\n")
            self.file.flush()
        if self.events is not None:
            for key, value in record.items():
                if key not in ("kind", "step", "epoch"):
                    self.events.add_scalar(f"{record['kind']}/{key}", value, record["step"])

    def sync(self) -> int:
        """Bring everything to the disk; returns the file's size in bytes."""
        with disk_errors(self.path):
            self.file.flush()
            os.fsync(self.file.fileno())
        return self.path.stat().st_size

    def close(self) -> None:
        with disk_errors(self.path):
            self.file.close()
        if self.events is not None:
            self.events.close()


def read_log(path: Path) -> list[dict[str, Any]]:
    """All records of a ``metrics.jsonl``."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _event_writer(folder: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise SettingError("--log tensorboard needs TensorBoard: pip install 'vitrail[log]'.") from error
    return SummaryWriter(str(folder), purge_step=step)
