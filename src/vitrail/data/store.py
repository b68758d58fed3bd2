"""Arrays of pixels in one memory-mapped file, shared by all processes that work on the same images.

The file is a header, a table of 64-byte entries found by hashing, and the pixels, to which new ones are only ever
appended. An entry is written after its pixels and says what they sum to. So a process may be killed at any moment: what
it had not finished has no entry, and what a power cut or another program damaged does not sum up and is not used.

    b"VITRAIL1" slots end name | entry entry entry ... | pixels pixels pixels ...
"""

from __future__ import annotations

import hashlib
import mmap
import os
import struct
import sys
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vitrail import atomic
from vitrail.console import say
from vitrail.data.geometry import Size
from vitrail.data.sample import Image

MAGIC = b"VITRAIL1"
HEADER = struct.Struct("<8sQQ")  # magic, slots, where the next pixels go; the name of the data follows, until a 0
ENTRY = struct.Struct("<16sQIIIIIQ")  # key, offset, shape, size of the whole image, sum of the pixels; then a digest
TABLE = 4096  # where the table begins
PROBES = 64  # entries that are looked at for one key
EMPTY = bytes(16)


class Kept(NamedTuple):
    """An array that was kept ``(h, w, C)`` uint8, read-only, and the height and width of the image it was made of."""

    pixels: Image
    whole: Size


class Store:
    """The file at ``path``, made if need be, of at most ``limit`` bytes, for about ``images`` images of ``name``.

    Raises OSError where it cannot be written or mapped. Later, where there is no room, it keeps no more and says so.
    """

    def __init__(self, path: Path, limit: int, images: int, name: str = "") -> None:
        self.path, self.limit = path, limit
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(path):
            if not _usable(path, _slots(images, limit) // 2):
                slots = _slots(images, limit)
                head = HEADER.pack(MAGIC, slots, _heap(slots)) + name.encode()[: TABLE - HEADER.size - 1]
                atomic.write_bytes(path, head.ljust(_heap(slots), b"\0"))
            self.file = os.open(path, os.O_RDWR | getattr(os, "O_BINARY", 0))
        weakref.finalize(self, os.close, self.file)
        os.utime(path)  # it was used
        self.slots = HEADER.unpack(self._read(0, HEADER.size))[1]
        self._map()
        # One byte for the store, one for each entry; processes that are forked from this one write to the same.
        self.notes = mmap.mmap(-1, 1 + self.slots)

    def find(self, key: bytes) -> Kept | None:
        """What was kept under these 16 bytes; None if there is nothing, or it is damaged."""
        for slot in self._probes(key):
            stored = self._entry(slot)
            if stored[:16] == EMPTY:
                return None
            if stored[:16] == key and stored[ENTRY.size :] == _digest(stored[: ENTRY.size]):
                return self._pixels(slot, stored)
        return None

    def keep(self, key: bytes, pixels: Image, whole: Size) -> None:
        """Keep an array ``(h, w, C)`` uint8 under a key, unless the store is full or cannot be written."""
        if self.notes[0]:
            return
        try:
            offset = self._reserve(pixels.nbytes)
            if offset is not None:
                self._write(offset, np.ascontiguousarray(pixels).data.cast("B"))
                self._publish(key, offset, pixels, whole)
        except OSError as error:
            self._close(f"cannot be written ({(error.strerror or str(error)).lower()})")

    def _close(self, why: str) -> None:
        """Keep no more; the first of all processes says why."""
        first, self.notes[0] = not self.notes[0], 1
        if first:
            say(f"the cache {self.path} {why}; other images are decoded each time")

    def _reserve(self, size: int) -> int | None:
        """Where ``size`` bytes may be written, by this process alone; None if that is beyond the limit."""
        with _locked(self.path):
            end: int = HEADER.unpack(self._read(0, HEADER.size))[2]
            offset = max(end, -(-os.fstat(self.file).st_size // 64) * 64)
            if offset + size <= self.limit:
                self._write(0, HEADER.pack(MAGIC, self.slots, offset + size))
                return offset
        self._close("is full")
        return None

    def _publish(self, key: bytes, offset: int, pixels: Image, whole: Size) -> None:
        entry = ENTRY.pack(key, offset, *pixels.shape, *whole, _sum(pixels.reshape(-1)))
        with _locked(self.path):
            for slot in self._probes(key):
                if self._read(TABLE + slot * 64, 16) in (EMPTY, key):
                    self.notes[1 + slot] = 1
                    self._write(TABLE + slot * 64, entry + _digest(entry))
                    return

    def _pixels(self, slot: int, stored: bytes) -> Kept | None:
        _, offset, height, width, channels, *whole, total = ENTRY.unpack(stored[: ENTRY.size])
        end = offset + height * width * channels
        if end > len(self.mapped):
            self._map()
        if end > len(self.mapped):  # cut off
            return None
        flat = np.frombuffer(self.mapped, np.uint8, end - offset, offset)
        if not self.notes[1 + slot]:
            if _sum(flat) != total:
                return None
            self.notes[1 + slot] = 1
        return Kept(flat.reshape(height, width, channels), (whole[0], whole[1]))

    def _probes(self, key: bytes) -> Iterator[int]:
        first = int.from_bytes(key[:8], "little")
        return ((first + step) % self.slots for step in range(PROBES))

    def _entry(self, slot: int) -> bytes:
        return self.mapped[TABLE + slot * 64 : TABLE + (slot + 1) * 64]

    def _map(self) -> None:
        self.mapped = mmap.mmap(self.file, 0, access=mmap.ACCESS_READ)

    def _read(self, offset: int, size: int) -> bytes:
        if sys.platform == "win32":
            os.lseek(self.file, offset, os.SEEK_SET)
            return os.read(self.file, size)
        return os.pread(self.file, size, offset)

    def _write(self, offset: int, data: bytes | memoryview) -> None:
        """By a system call and not through the mapping, where a full disk would be a bus error."""
        while data:
            if sys.platform == "win32":
                os.lseek(self.file, offset, os.SEEK_SET)
                written = os.write(self.file, data)
            else:
                written = os.pwrite(self.file, data, offset)
            data, offset = data[written:], offset + written


def contents(path: Path) -> tuple[str, int]:
    """The name of the data that a store is of, and how many arrays it holds. Raises OSError."""
    if not _usable(path, 0):
        return "", 0
    with path.open("rb") as file:
        slots = HEADER.unpack(file.read(HEADER.size))[1]
        name = file.read(TABLE - HEADER.size).partition(b"\0")[0].decode(errors="replace")
        table: NDArray[np.uint8] = np.frombuffer(file.read(slots * 64), np.uint8).reshape(-1, 64)
    return name, int(table[:, :16].any(axis=1).sum())


def _heap(slots: int) -> int:
    """Where the pixels begin."""
    return -(-(TABLE + slots * 64) // 4096) * 4096


def _slots(images: int, limit: int) -> int:
    """How many entries there are: so many that they are seldom full, and none for what the limit has no room for."""
    return 256 + min(4 * images, limit // 8192)


def _usable(path: Path, least: int) -> bool:
    """Whether the file is a store that is whole and has at least so many entries."""
    with suppress(OSError, struct.error), path.open("rb") as file:
        magic, slots, _ = HEADER.unpack(file.read(HEADER.size))
        return magic == MAGIC and slots >= least and path.stat().st_size >= _heap(slots)
    return False


def _sum(flat: NDArray[np.uint8]) -> int:
    """64 bits that show pixels that are missing or damaged, at the speed of the memory.

    A digest of two checksums: any single change of a word changes the second.
    """
    words = flat[: flat.size // 8 * 8].view(np.uint64)
    both = np.array([np.add.reduce(words), np.bitwise_xor.reduce(words)], np.uint64).tobytes()
    digest = hashlib.blake2b(both + flat[words.size * 8 :].tobytes(), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def _digest(entry: bytes) -> bytes:
    return hashlib.blake2b(entry, digest_size=64 - ENTRY.size).digest()


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One process, and one thread of it, at a time; the system lets go of what a process held that is killed."""
    with path.with_suffix(".lock").open("ab") as file:
        if sys.platform == "win32":
            import msvcrt

            file.seek(0)
            msvcrt.locking(file.fileno(), msvcrt.LK_LOCK, 1)
            try:
                yield
            finally:
                file.seek(0)
                msvcrt.locking(file.fileno(), msvcrt.LK_UNLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
            yield
