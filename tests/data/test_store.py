"""What a store gives back is what was kept, or nothing: after kills, beside other processes, from a damaged file."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vitrail.data.store import ENTRY, TABLE, Store, _sum, contents

LIMIT = 2**22
forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


def pixels(number: int) -> np.ndarray:
    """Noise of a shape of its own, which the number alone determines."""
    rng = np.random.default_rng(number)
    return rng.integers(0, 256, (*rng.integers(1, 70, 2), 1 + 2 * (number % 2)), dtype=np.uint8)


def key(number: int) -> bytes:
    return hashlib.blake2b(str(number).encode(), digest_size=16).digest()


def right(store: Store, numbers: range) -> int:
    """How many of the numbers are there; each must be what was kept."""
    found = 0
    for number in numbers:
        kept = store.find(key(number))
        if kept is not None:
            np.testing.assert_array_equal(kept.pixels, pixels(number))
            assert kept.whole == (number, 2 * number)
            assert not kept.pixels.flags.writeable
            found += 1
    return found


def fill(store: Store, numbers: range) -> None:
    for number in numbers:
        store.keep(key(number), pixels(number), (number, 2 * number))


def test_what_is_kept_is_found_again_by_this_process_and_the_next(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.pixels"
    store = Store(path, LIMIT, 200, "photos")
    assert right(store, range(100)) == 0
    fill(store, range(100))
    assert right(store, range(200)) == 100
    assert right(Store(path, LIMIT, 200), range(200)) == 100
    assert contents(path) == ("photos", 100)


@settings(deadline=None, max_examples=20)
@given(st.lists(st.integers(0, 40), max_size=60))
def test_any_order_of_keeping_and_keeping_again(tmp_path_factory: pytest.TempPathFactory, numbers: list[int]) -> None:
    store = Store(tmp_path_factory.mktemp("store") / "a.pixels", LIMIT, 41)
    for number in numbers:
        store.keep(key(number), pixels(number), (number, 2 * number))
    assert right(store, range(41)) == len(set(numbers))


def test_many_more_arrays_than_entries_are_not_all_kept_but_none_is_wrong(tmp_path: Path) -> None:
    store = Store(tmp_path / "a.pixels", 2**24, 1)
    fill(store, range(400))
    assert 200 < right(store, range(400)) <= store.slots


def test_the_limit_is_kept_and_said_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.pixels"
    store = Store(path, 300_000, 200)
    fill(store, range(200))
    assert path.stat().st_size <= 300_000
    assert 10 < right(store, range(200)) < 200
    fill(Store(path, 300_000, 200), range(200, 300))
    assert path.stat().st_size <= 300_000
    assert capsys.readouterr().err.count("is full; other images are decoded each time") == 2  # by each store
    larger = Store(path, LIMIT, 200)
    fill(larger, range(200, 210))
    assert right(larger, range(200, 210)) == 10


def test_a_full_disk_is_said_once_and_nothing_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(tmp_path / "a.pixels", LIMIT, 100)
    fill(store, range(10))

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(store, "_write", full)
    fill(store, range(10, 20))
    assert right(store, range(20)) == 10
    assert capsys.readouterr().err.count("cannot be written (no space left on device)") == 1


def in_a_child(work: Callable[[], object]) -> int:
    """Another process that does this work and no more; its number."""
    child = os.fork()
    if child:
        return child
    status = 1
    with contextlib.suppress(BaseException):
        work()
        status = 0
    os._exit(status)


def status_of(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@forks
def test_a_write_that_the_system_cuts_short_leaves_no_image(tmp_path: Path) -> None:
    """A real refusal in the middle of an image: the largest size of a file is reached."""
    import resource

    path, said = tmp_path / "a.pixels", tmp_path / "said"

    def work() -> None:
        store = Store(path, LIMIT, 100)
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        with said.open("w") as file, contextlib.redirect_stderr(file):
            fill(store, range(100))
            assert right(store, range(100)) > 0

    assert status_of(in_a_child(work)) == 0
    assert said.read_text().count("cannot be written (file too large)") == 1
    assert path.stat().st_size == 100_000
    assert 0 < right(Store(path, LIMIT, 100), range(100)) < 100


@forks
def test_processes_that_are_killed_leave_nothing_half_written(tmp_path: Path) -> None:
    path = tmp_path / "a.pixels"
    store, found = Store(path, 2**27, 4000), 0
    for number in range(25):
        child = in_a_child(lambda: fill(Store(path, 2**27, 4000), range(4000)))
        time.sleep(0.004 * number)
        os.kill(child, signal.SIGKILL)
        assert status_of(child) == -signal.SIGKILL
        now = right(Store(path, 2**27, 4000), range(4000))
        assert right(store, range(4000)) == now >= found  # nothing that was there is lost
        found = now
    fill(store, range(found + 50))  # the lock of the dead is free
    assert right(store, range(found + 50)) == found + 50


@forks
def test_two_processes_at_once(tmp_path: Path) -> None:
    path = tmp_path / "a.pixels"
    store = Store(path, 2**27, 4000)
    both = [
        in_a_child(lambda first=first: fill(Store(path, 2**27, 4000), range(first, first + 250))) for first in (0, 200)
    ]
    patience = time.monotonic() + 60
    while right(store, range(450)) < 450 and time.monotonic() < patience:
        pass  # what is being written is not seen, or whole
    assert [status_of(child) for child in both] == [0, 0]
    assert right(store, range(450)) == 450


@forks
def test_forked_processes_share_one_store(tmp_path: Path) -> None:
    store = Store(tmp_path / "a.pixels", LIMIT, 400)
    children = [in_a_child(lambda first=first: fill(store, range(first, first + 40))) for first in (0, 20, 40)]
    assert [status_of(child) for child in children] == [0, 0, 0]
    assert right(store, range(100)) == 80


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_damage_is_noticed(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Any byte of the pixels or entries that another program changed: that image goes, and can be kept anew."""
    path = tmp_path_factory.mktemp("store") / "a.pixels"
    fill(Store(path, LIMIT, 30), range(30))
    stored = bytearray(path.read_bytes())
    place = data.draw(st.integers(TABLE, len(stored) - 1))
    stored[place] ^= data.draw(st.integers(1, 255))
    path.write_bytes(stored)
    store = Store(path, LIMIT, 30)
    assert right(store, range(30)) >= 20  # an entry that became a stranger's hides those that it was in the way of
    fill(store, range(30))
    assert right(store, range(30)) == 30


@pytest.mark.parametrize("bit", range(64))
def test_the_sum_sees_any_bit(bit: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, 83, dtype=np.uint8)  # ten words and three bytes
    for place in (bit // 8, 72 + bit // 8, 80 + bit // 8 % 3):
        changed = image.copy()
        changed[place] ^= 1 << bit % 8
        assert _sum(changed) != _sum(image)


def test_pages_that_never_reached_the_disk_are_noticed(tmp_path: Path) -> None:
    """After a power cut entries may be there and pixels not: zeros, or the end of the file."""
    path = tmp_path / "a.pixels"
    store = Store(path, LIMIT, 30)
    fill(store, range(30))
    begin = ENTRY.unpack(store._entry(next(slot for slot in range(store.slots) if any(store._entry(slot)[:16])))[:52])[
        1
    ]
    stored = bytearray(path.read_bytes())
    stored[begin // 4096 * 4096 : begin // 4096 * 4096 + 4096] = bytes(4096)
    path.write_bytes(stored[:-5000])
    after = Store(path, LIMIT, 30)
    assert right(after, range(30)) < 30
    fill(after, range(30))
    assert right(after, range(30)) == 30


@pytest.mark.parametrize("content", [b"", b"something else entirely", b"VITRAIL1", b"VITRAIL1" + bytes(100)])
def test_a_file_that_is_no_store_is_made_anew(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.pixels"
    path.write_bytes(content)
    assert contents(path) == ("", 0)
    store = Store(path, LIMIT, 30)
    fill(store, range(5))
    assert right(store, range(30)) == 5


def test_a_store_that_is_removed_serves_those_who_have_it_open(tmp_path: Path) -> None:
    path = tmp_path / "a.pixels"
    store = Store(path, LIMIT, 30)
    fill(store, range(5))
    if sys.platform != "win32":
        path.unlink()
    fill(store, range(5, 10))
    assert right(store, range(10)) == 10


def test_a_folder_that_cannot_be_made_is_an_os_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OSError, match="file"):
        Store(tmp_path / "file" / "a.pixels", LIMIT, 10)
