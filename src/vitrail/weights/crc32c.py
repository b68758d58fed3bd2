"""CRC-32C (Castagnoli), the checksum in TensorFlow's checkpoints, at the speed of NumPy.

A CRC is linear over bits: zeros that follow a word turn it into another word by a fixed linear map. So a word can be
moved any distance towards the end of the data and added (exclusive or) to the word there, without changing the CRC. A
long row of words is folded onto its last few thousand in this way, which then are taken byte by byte.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

POLYNOMIAL = 0x82F63B78  # bits in reverse, as they are used (RFC 3720, section 12.1)
FOLDS = (1 << 14, 1 << 8)  # words onto which data are folded, one after the other

Words = NDArray[np.uint32]


def crc32c(data: bytes | bytearray | memoryview) -> int:
    """The CRC-32C of some bytes; that of b"123456789" is 0xE3069283."""
    words = np.frombuffer(data, "<u4", len(data) // 4).copy()
    rest = bytes(memoryview(data)[4 * len(words) :])
    register = 0xFFFFFFFF
    if len(words):
        words[0] ^= register  # what the register starts with is added to the first word
        register = 0
    for fold in FOLDS:
        words = _folded(words, fold)
    table: list[int] = _table().tolist()
    for byte in words.astype("<u4").tobytes() + rest:
        register = table[(register ^ byte) & 0xFF] ^ (register >> 8)
    return register ^ 0xFFFFFFFF


def _folded(words: Words, length: int) -> Words:
    """Words with the same CRC, fewer than 2 · ``length`` of them."""
    rows = len(words) // length
    if rows < 2:
        return words
    folded, moved = np.zeros(length, np.uint32), _moved_by(4 * length)
    for row in words[: rows * length].reshape(rows, length)[:-1]:
        folded ^= row
        folded = (
            moved[0][folded & 0xFF]
            ^ moved[1][folded >> 8 & 0xFF]
            ^ moved[2][folded >> 16 & 0xFF]
            ^ moved[3][folded >> 24]
        )
    folded ^= words[(rows - 1) * length : rows * length]
    return np.concatenate([folded, words[rows * length :]])


@cache
def _table() -> Words:
    """What each value of a byte leaves in the register, ``(256,)``."""
    register = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        register = np.where(register & 1, register >> 1 ^ np.uint32(POLYNOMIAL), register >> 1)
    return register


@cache
def _moved_by(count: int) -> Sequence[Words]:
    """What each value of each of the four bytes of a word becomes when ``count`` zeros follow; a power of two."""
    bits = np.uint32(1) << np.arange(32, dtype=np.uint32)
    columns = _table()[bits & 0xFF] ^ bits >> 8  # of each bit, after one zero
    for _ in range(count.bit_length() - 1):
        columns = _applied(columns, columns)
    values = np.arange(256, dtype=np.uint32)
    return [_applied(columns, values << np.uint32(8 * byte)) for byte in range(4)]


def _applied(columns: Words, words: Words) -> Words:
    """A linear map, given by what becomes of each bit, on each of some words."""
    chosen = np.where(words[:, None] >> np.arange(32, dtype=np.uint32) & 1, columns, 0)
    return np.bitwise_xor.reduce(chosen.astype(np.uint32), axis=1)
