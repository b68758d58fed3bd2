"""TensorFlow's checkpoints (version 2), read without TensorFlow: OpenAI's GPT-2 and iGPT, Google's BERT.

``NAME.index`` is a table as LevelDB writes it (its doc/table_format.md): blocks of sorted keys, each without what it
shares with the key before, and a checksum after each block. Its values are protocol buffers
(tensorflow/core/protobuf/tensor_bundle.proto), one a tensor: type, shape, and where its bytes are in
``NAME.data-00000-of-00001`` and so on, with their checksum. Every length is checked before it is used, and every
checksum before what it is of is believed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import torch
from torch import Tensor

from vitrail.errors import CheckpointError
from vitrail.weights.crc32c import crc32c

SUFFIX = ".index"
LATEST = "checkpoint"  # a file of text that names the last of the checkpoints beside it
FOOTER, MAGIC = 48, 0xDB4775248B80FB57
TRAILER = 5  # bytes after a block: how it is compressed, and its checksum

DTYPES = {  # tensorflow/core/framework/types.proto; what is no number, such as text, is left out
    1: torch.float32,
    2: torch.float64,
    3: torch.int32,
    4: torch.uint8,
    5: torch.int16,
    6: torch.int8,
    8: torch.complex64,
    9: torch.int64,
    10: torch.bool,
    14: torch.bfloat16,
    18: torch.complex128,
    19: torch.float16,
}

# What optimizers keep beside the weights.
UNNEEDED = re.compile(
    r".*/(adam_[mv]|Adam(_\d+)?|Momentum|RMSProp(_\d+)?)|.*_slot_[mv][rc]?|(.*/)?(global_step|beta[12]_power(_\d+)?)"
    r"|(.*/)?save_counter/.*|.*/\.OPTIMIZER_SLOT/.*|optimizer/.*"
)


class Unsupported(ValueError):
    """A checkpoint that is whole, but of a kind that is not read here."""


class Entry(NamedTuple):
    """Where a tensor is: ``size`` bytes from ``offset`` in the file of data ``shard``."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    checksum: int


def read_checkpoint(index: Path) -> dict[str, Tensor]:
    """The tensors of the checkpoint ``NAME.index``, on the CPU, by TensorFlow's names, without those of optimizers.

    Raises :class:`CheckpointError` for a file of data that is missing, ValueError for damage.
    """
    shards, entries = _read_index(index)
    tensors: dict[str, Tensor] = {}
    for number, path in enumerate(_data_files(index, shards)):
        inside = {name: entry for name, entry in entries.items() if entry.shard == number}
        if not inside:
            continue
        if not path.is_file():
            raise CheckpointError(f"there is no file {path}, which {index.name} needs; the checkpoint is incomplete.")
        with path.open("rb") as file:
            tensors |= {name: _tensor(file, name, entry) for name, entry in inside.items()}
    return {name: tensors[name] for name in entries}


def data_files(index: Path) -> list[Path]:
    """The files beside an index that have the tensors' bytes. Raises :class:`CheckpointError` if it is damaged."""
    try:
        return _data_files(index, _read_index(index)[0])
    except (ValueError, LookupError) as error:
        raise CheckpointError(f"{index} is damaged or cut short ({error}); fetch it again.") from error


def index_of(path: Path) -> Path:
    """The index of a checkpoint that is named as TensorFlow does, without an ending; any other path as it is."""
    index = path.with_name(path.name + SUFFIX)
    return index if path.name and not path.exists() and index.is_file() else path


def latest(folder: Path) -> Path | None:
    """The index of the only checkpoint in a folder, or of the one that TensorFlow notes there as the last; or None."""
    found = list(folder.glob(f"*{SUFFIX}"))
    if len(found) != 1:
        note = folder / LATEST
        words = note.read_text(encoding="utf-8", errors="replace") if note.is_file() else ""
        named = re.search(r'^model_checkpoint_path: *"(?:.*/)?([^/"]+)"', words, re.MULTILINE)
        found = [path for path in found if named is not None and path.stem == named[1]]
    return found[0] if found else None


def _data_files(index: Path, shards: int) -> list[Path]:
    return [index.with_name(f"{index.stem}.data-{number:05}-of-{shards:05}") for number in range(shards)]


def _tensor(file: BinaryIO, name: str, entry: Entry) -> Tensor:
    """Read one tensor and compare its checksum."""
    if entry.size != math.prod(entry.shape) * entry.dtype.itemsize:
        raise ValueError(f"{name} has {entry.size} bytes, which its shape {entry.shape} has not")
    if entry.offset + entry.size > file.seek(0, 2):
        raise ValueError(f"{file.name} ends before {name}")
    file.seek(entry.offset)
    content = bytearray(file.read(entry.size))
    if _masked(crc32c(content)) != entry.checksum:
        raise ValueError(f"in {file.name}, {name} does not have its checksum")
    if not content:
        return torch.empty(entry.shape, dtype=entry.dtype)
    return torch.frombuffer(content, dtype=entry.dtype).reshape(entry.shape)


def _read_index(index: Path) -> tuple[int, dict[str, Entry]]:
    """How many files of data there are, and an entry for each tensor that is needed."""
    try:
        return _contents(_table(index.read_bytes()))
    except Unsupported as error:
        raise CheckpointError(f"{index} cannot be read: {error}.") from error


def _contents(table: Iterator[tuple[bytes, bytes]]) -> tuple[int, dict[str, Entry]]:
    """The header and the entries of an index."""
    key, value = next(table, (b"?", b""))
    if key:
        raise ValueError("the index does not begin with a header")
    header = _numbers(value)
    shards, big_endian = header.get(1, 0), header.get(2, 0)
    if not 1 <= shards <= 99_999:
        raise ValueError("the number of files of data makes no sense")
    if big_endian:
        raise Unsupported("its numbers have the highest byte first; write it on a usual machine")
    entries = {}
    for key, value in table:
        if key.startswith(b"\0"):
            raise Unsupported("it has a variable in slices; save each in one piece")
        name, entry = key.decode(), _entry(value)
        if entry is not None and not UNNEEDED.fullmatch(name):
            if entry.shard >= shards:
                raise ValueError(f"{name} is in a file that there is not")
            entries[name] = entry
    return shards, entries


def _entry(value: bytes) -> Entry | None:
    """A BundleEntryProto; None for what is no number."""
    numbers = _numbers(value)
    if _parts(value, 7):
        raise Unsupported("it has a variable in slices; save each in one piece")
    dtype = DTYPES.get(numbers.get(1, 0))
    if dtype is None:
        return None
    shape = tuple(_numbers(axis).get(1, 0) for shape in _parts(value, 2) for axis in _parts(shape, 2))
    shard, offset, size, checksum = (numbers.get(number, 0) for number in (3, 4, 5, 6))
    return Entry(dtype, shape, shard, offset, size, checksum)


def _table(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of a table, in the order of the keys."""
    if len(data) < FOOTER or int.from_bytes(data[-8:], "little") != MAGIC:
        raise ValueError("it does not end as an index of TensorFlow does")
    handles = data[-FOOTER:]  # of a block of metadata, which is empty, and of that which lists the others
    _, at = _handle(handles, 0)
    (offset, size), _ = _handle(handles, at)
    for _, value in _block(data, offset, size):
        (offset, size), _ = _handle(value, 0)
        yield from _block(data, offset, size)


def _block(data: bytes, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of a block."""
    end = offset + size
    if end + TRAILER > len(data) - FOOTER or size < 4:
        raise ValueError("a block of the index is not there")
    if _masked(crc32c(data[offset : end + 1])) != int.from_bytes(data[end + 1 : end + TRAILER], "little"):
        raise ValueError("a block of the index does not have its checksum")
    if data[end] != 0:
        raise Unsupported("its index is compressed; write it with a later TensorFlow")
    block = data[offset:end]
    restarts = int.from_bytes(block[-4:], "little")
    at, key, last = 0, b"", len(block) - 4 * (restarts + 1)
    while at < last:
        shared, at = _varint(block, at)
        unshared, at = _varint(block, at)
        length, at = _varint(block, at)
        if shared > len(key) or at + unshared + length > last:
            raise ValueError("a block of the index is damaged")
        key = key[:shared] + block[at : at + unshared]
        at += unshared + length
        yield key, block[at - length : at]


def _handle(data: bytes, at: int) -> tuple[tuple[int, int], int]:
    """Offset and size of a block, and where what follows them begins."""
    offset, at = _varint(data, at)
    size, at = _varint(data, at)
    return (offset, size), at


def _numbers(message: bytes) -> dict[int, int]:
    """The fields of a protocol buffer that are numbers, by their own number."""
    return {number: content for number, content in _fields(message) if isinstance(content, int)}


def _parts(message: bytes, wanted: int) -> list[bytes]:
    """The contents of those fields of this number that are no numbers."""
    return [content for number, content in _fields(message) if number == wanted and isinstance(content, bytes)]


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Numbers and contents of the fields of a protocol buffer."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        kind = tag & 7
        if kind == 0:
            content, at = _varint(message, at)
            yield tag >> 3, content
            continue
        length, at = _varint(message, at) if kind == 2 else ({1: 8, 5: 4}[kind], at)
        if at + length > len(message):
            raise ValueError("a description in the index is cut short")
        found = message[at : at + length]
        yield tag >> 3, found if kind == 2 else int.from_bytes(found, "little")
        at += length


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number of as many bytes as it needs, seven bits in each, and where what follows it begins."""
    value = 0
    for place in range(10):
        byte = data[at + place]
        value |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return value, at + place + 1
    raise ValueError("a number in the index has no end")


def _masked(checksum: int) -> int:
    """As LevelDB stores it, lest a checksum be taken of bytes that have one."""
    return ((checksum >> 15 | checksum << 17) + 0xA282EAD8) & 0xFFFFFFFF
