"""Images by their paths or as bytes, without labels."""

from __future__ import annotations

import io
import pickle
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from vitrail.data.files import Files
from vitrail.errors import UnreadableImage


def png(value: int) -> bytes:
    buffer = io.BytesIO()
    PIL.Image.fromarray(np.full((2, 3, 3), value, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def test_paths_and_bytes_are_read_alike(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(7))
    files = Files([tmp_path / "a.png", ("standard input", png(9))])
    assert len(files) == 2
    assert [files.name(index) for index in range(2)] == [str(tmp_path / "a.png"), "standard input"]
    assert [files.label(index) for index in range(2)] == [None, None]
    assert [files.encoded(index) for index in range(2)] == [png(7), png(9)]
    for index, value in ((0, 7), (1, 9)):
        sample = files.sample(index)
        np.testing.assert_array_equal(sample.image, np.full((2, 3, 3), value))
        assert (sample.name, sample.label) == (files.name(index), None)


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    missing = tmp_path / "missing.png"
    files = Files([missing, ("upload", b"no image"), ("nothing", b"")])
    for index, name in enumerate((str(missing), "upload", "nothing")):
        with pytest.raises(UnreadableImage) as caught:
            files.sample(index)
        assert caught.value.name == name
    with pytest.raises(UnreadableImage) as caught:
        files.encoded(0)
    assert caught.value.name == str(missing)


def test_it_travels_to_worker_processes(tmp_path: Path) -> None:
    files = Files((("bytes", png(3)),))
    assert pickle.loads(pickle.dumps(files)) == files
