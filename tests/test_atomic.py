"""Files are written whole or not at all, also when the disk is full or the process is killed."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from vitrail import atomic
from vitrail.errors import DiskFull

ALWAYS_FULL = Path("/dev/full")  # a file that fails every write for want of space


def old_file(folder: Path) -> Path:
    path = folder / "file.txt"
    path.write_text("old")
    return path


def no_space(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_text_is_utf8_with_its_line_ends_as_they_are(tmp_path: Path) -> None:
    atomic.write_text(tmp_path / "a.txt", "één\nzwei\r\n")
    assert (tmp_path / "a.txt").read_bytes() == b"\xc3\xa9\xc3\xa9n\nzwei\r\n"


def test_folders_are_made_and_nothing_else_is_left(tmp_path: Path) -> None:
    atomic.write_bytes(tmp_path / "a" / "b" / "c.bin", memoryview(b"\0\1"))
    assert (tmp_path / "a" / "b" / "c.bin").read_bytes() == b"\0\1"
    assert [path.name for path in tmp_path.rglob("*")] == ["a", "b", "c.bin"]


def test_a_bare_name_is_a_file_of_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    atomic.write_bytes(Path("c.bin"), b"x")
    assert os.listdir(tmp_path) == ["c.bin"]  # noqa: PTH208


def test_until_it_is_whole_the_old_file_is_what_is_read(tmp_path: Path) -> None:
    path = old_file(tmp_path)
    read_meanwhile = []

    def fill(temporary: Path) -> None:
        temporary.write_text("new")
        read_meanwhile.append(path.read_text())
        assert temporary.parent == path.parent  # on the same disk, or it could not be renamed
        assert temporary.suffix == path.suffix  # by which writers such as Matplotlib choose the format

    atomic.write(path, fill)
    assert (read_meanwhile, path.read_text()) == (["old"], "new")


@pytest.mark.skipif(os.name != "posix", reason="permissions are those of POSIX")
@pytest.mark.parametrize("mask", [0o022, 0o077, 0o000])
def test_permissions_are_those_of_any_new_file(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        atomic.write_bytes(tmp_path / "file", b"")
        assert os.umask(mask) == mask  # still the same
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o666 & ~mask


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_error_while_filling_leaves_the_old_file_alone(tmp_path: Path, error: type[BaseException]) -> None:
    path = old_file(tmp_path)

    def fill(temporary: Path) -> None:
        temporary.write_text("half")
        raise error

    with pytest.raises(error):
        atomic.write(path, fill)
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("file.txt", "old")]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_no_space_and_no_quota_are_a_full_disk(tmp_path: Path, number: int) -> None:
    path = old_file(tmp_path)

    def fill(temporary: Path) -> None:
        temporary.write_text("half")
        raise OSError(number, os.strerror(number))

    with pytest.raises(DiskFull) as caught:
        atomic.write(path, fill)
    assert str(caught.value) == f"the disk is full: {path} could not be written; free some space and go on."
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("file.txt", "old")]


@pytest.mark.parametrize("step", ["pathlib.Path.mkdir", "tempfile.mkstemp", "os.fsync", "pathlib.Path.replace"])
def test_the_disk_may_be_full_at_any_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    path = old_file(tmp_path)
    monkeypatch.setattr(step, no_space)
    with pytest.raises(DiskFull, match=r"file\.txt could not be written"):
        atomic.write_bytes(path, b"new")
    monkeypatch.undo()
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("file.txt", "old")]


def test_other_errors_stay_what_they_are(tmp_path: Path) -> None:
    def refuse(temporary: Path) -> None:
        raise PermissionError(errno.EACCES, "no")

    with pytest.raises(PermissionError):
        atomic.write(tmp_path / "file", refuse)
    with pytest.raises(FileExistsError):  # a file where a folder is to be
        atomic.write_bytes(old_file(tmp_path) / "below", b"")


@pytest.mark.skipif(not ALWAYS_FULL.is_char_device(), reason="needs /dev/full, which Linux has")
def test_a_write_that_really_fails_is_a_full_disk(tmp_path: Path) -> None:
    with pytest.raises(DiskFull, match="x could not be written"):
        atomic.write(tmp_path / "x", lambda _: ALWAYS_FULL.write_bytes(b"1"))
    assert not list(tmp_path.iterdir())


def in_a_tiny_disk(program: str) -> subprocess.CompletedProcess[str]:
    """Run a Python program in a process of its own to which /mnt is a disk of 64 KB."""
    mount = 'mount -t tmpfs -o size=64k tmpfs /mnt && exec "$0" -c "$1"'
    words = ["unshare", "--mount", "--map-root-user", "sh", "-c", mount, sys.executable, program]
    return subprocess.run(words, capture_output=True, text=True)


def test_a_disk_that_is_really_full_keeps_the_old_file() -> None:
    if shutil.which("unshare") is None or in_a_tiny_disk("pass").returncode != 0:
        pytest.skip("a tiny disk needs Linux and the right to mount one")
    program = (
        "import os; from pathlib import Path; from vitrail import atomic, errors\n"
        "atomic.write_bytes(Path('/mnt/a'), b'old')\n"
        "try: atomic.write_bytes(Path('/mnt/a'), bytes(100_000))\n"
        "except errors.DiskFull as error: print(error, os.listdir('/mnt'), Path('/mnt/a').read_text())"
    )
    said = "the disk is full: /mnt/a could not be written; free some space and go on. ['a'] old\n"
    assert in_a_tiny_disk(program).stdout == said


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL is a signal of POSIX")
def test_a_killed_process_leaves_the_old_file_and_something_to_remove(tmp_path: Path) -> None:
    path = old_file(tmp_path)
    (tmp_path / "file.txt.mine").touch()
    (tmp_path / ".another.txt.1.txt").touch()
    program = (
        "import os, signal; from pathlib import Path; from vitrail import atomic\n"
        f"atomic.write(Path({str(path)!r}), lambda t: (t.write_text('half'), os.kill(os.getpid(), signal.SIGKILL)))"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == -signal.SIGKILL
    assert path.read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 4
    atomic.remove_leftovers(path)
    assert {file.name for file in tmp_path.iterdir()} == {"file.txt", "file.txt.mine", ".another.txt.1.txt"}


def test_where_nothing_was_written_nothing_is_removed(tmp_path: Path) -> None:
    atomic.remove_leftovers(tmp_path / "no" / "such")
