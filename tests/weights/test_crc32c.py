"""CRC-32C against the published examples and against the definition, bit by bit."""

from __future__ import annotations

import random

import pytest

from vitrail.weights.crc32c import crc32c


def bit_by_bit(data: bytes) -> int:
    register = 0xFFFFFFFF
    for byte in data:
        register ^= byte
        for _ in range(8):
            register = register >> 1 ^ (0x82F63B78 if register & 1 else 0)
    return register ^ 0xFFFFFFFF


@pytest.mark.parametrize(
    ("data", "checksum"),
    [  # RFC 3720, section B.4
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(reversed(range(32))), 0x113FDB5C),
        (b"123456789", 0xE3069283),
        (b"", 0),
    ],
)
def test_published_examples(data: bytes, checksum: int) -> None:
    assert crc32c(data) == checksum


@pytest.mark.parametrize("length", [1, 3, 5, 1023, 1024, 2047, 2048, 2049, 65_535, 131_072, 131_077, 200_001])
def test_any_length_is_what_the_definition_says(length: int) -> None:
    data = random.Random(length).randbytes(length)
    assert crc32c(data) == crc32c(bytearray(data)) == bit_by_bit(data)


def test_each_bit_counts() -> None:
    data = bytearray(random.Random(0).randbytes(70_000))
    right = crc32c(data)
    for place in range(0, len(data), 6_999):
        data[place] ^= 4
        assert crc32c(data) != right
        data[place] ^= 4
    assert crc32c(data) == right
