"""WebDataset shards, written with Python's own tarfile in each of its formats, sound and damaged."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import pickle
import tarfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vitrail.data.sample import Labels
from vitrail.data.shards import open_shards, recognises
from vitrail.data.source import Dataset
from vitrail.errors import DataError, UnreadableImage, UserError


def png(value: int) -> bytes:
    buffer = io.BytesIO()
    PIL.Image.fromarray(np.full((2, 3), value, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def tar(members: Sequence[tuple[str, bytes]], format: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def shard(path: Path, *labels: str, first: int = 0) -> Path:
    """A shard with an image and a ``.cls`` for each label; the pixels of image n are n."""
    numbered = list(enumerate(labels, start=first))
    path.write_bytes(
        tar([m for n, label in numbered for m in ((f"{n:04}.png", png(n)), (f"{n:04}.cls", label.encode()))])
    )
    return path


def listing(dataset: Dataset, split: str = "train") -> list[tuple[int, str]]:
    """The value of the pixels and the class of every image."""
    source = dataset.splits[split]
    samples = [source.sample(index) for index in range(len(source))]
    return [(int(sample.image[0, 0, 0]), dataset.classes[sample.label.index]) for sample in samples]


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_images_and_labels_share_a_key(tmp_path: Path, format: int) -> None:
    long = "folder/" * 20 + "key"
    members = [
        ("a/0.png", png(10)),
        ("b/0.cls", b"1"),
        ("a/0.seg.png", png(99)),
        ("a/0.cls", b" cat\n"),
        ("b/0.PNG", png(11)),
        ("a/0.txt", b"a caption"),
        (f"{long}.cls" if format != tarfile.USTAR_FORMAT else "key.cls", b"cat"),
        (f"{long}.jpeg" if format != tarfile.USTAR_FORMAT else "key.jpeg", png(12)),
    ]
    (tmp_path / "s.tar").write_bytes(tar(members, format))
    dataset = open_shards(tmp_path / "s.tar")
    assert dataset.classes == ("1", "cat")
    assert listing(dataset) == [(10, "cat"), (11, "1"), (12, "cat")]
    assert dataset.notes == ()
    source = pickle.loads(pickle.dumps(dataset.splits["train"]))
    assert source.name(1) == f"{tmp_path / 's.tar'}#b/0"
    assert source.encoded(1) == png(11)
    assert source.encoded_size(1) == len(png(11))
    assert source.label(1) == source.sample(1).label


def test_incomplete_keys_are_counted(tmp_path: Path) -> None:
    members = [
        ("0.png", png(0)),
        ("1.png", png(1)),
        ("2.cls", b"a"),
        ("3.png", png(3)),
        ("3.cls", b"a"),
        ("._3.png", b"x"),
    ]
    (tmp_path / "s.tar").write_bytes(tar(members))
    dataset = open_shards(tmp_path)
    assert listing(dataset) == [(3, "a")]
    assert dataset.notes == ("2 keys without a label were left out.", "1 keys without an image were left out.")


@pytest.mark.parametrize(("label", "many"), [(5, False), ("five", False), (["sea", "sky", "sea"], True), ([], True)])
def test_labels_in_json(tmp_path: Path, label: object, many: bool) -> None:
    stored = json.dumps({"label": label, "more": None}).encode()
    (tmp_path / "s.tar").write_bytes(
        tar([("0.json", stored), ("0.png", png(0)), ("1.json", b"[1]"), ("1.png", png(1))])
    )
    dataset = open_shards(tmp_path)
    assert dataset.many_labels == many
    assert len(dataset.splits["train"]) == 1
    if many:
        assert dataset.splits["train"].label(0) == Labels(tuple(range(len(set(label)))))
    else:
        assert dataset.classes == (str(label),)


def test_one_label_and_several_in_one_set(tmp_path: Path) -> None:
    members = [("0.cls", b"b"), ("0.png", png(0)), ("1.json", b'{"label": ["a", "b"]}'), ("1.png", png(1))]
    (tmp_path / "s.tar").write_bytes(tar(members))
    source = open_shards(tmp_path).splits["train"]
    assert [source.label(index) for index in range(2)] == [Labels((1,)), Labels((0, 1))]


def test_splits_by_the_shards_names(tmp_path: Path) -> None:
    shard(tmp_path / "train-0.tar", "a", "b")
    shard(tmp_path / "val_0.tar", "b", first=2)
    shard(tmp_path / "test.tar", "a", first=3)
    shard(tmp_path / "extra.tar", "b", first=4)
    dataset = open_shards(tmp_path)
    assert {split: listing(dataset, split) for split in dataset.splits} == {
        "train": [(4, "b"), (0, "a"), (1, "b")],
        "validation": [(2, "b")],
        "test": [(3, "a")],
    }
    assert listing(open_shards(tmp_path / "test.tar")) == [(3, "a")]


def test_patterns(tmp_path: Path) -> None:
    for number in range(8, 12):
        shard(tmp_path / f"d-{number:03}.tar", str(number), first=number)
    assert recognises(tmp_path / "d-{008..010}.tar")
    assert listing(open_shards(tmp_path / "d-{008..010}.tar")) == [(8, "8"), (9, "9"), (10, "10")]
    assert listing(open_shards(tmp_path / "d-{0..0}{10..11}.tar")) == [(10, "10"), (11, "11")]
    assert listing(open_shards(tmp_path / "d-01*.tar")) == [(10, "10"), (11, "11")]
    with pytest.raises(DataError, match=r"no shard .*d-012\.tar"):
        open_shards(tmp_path / "d-{008..999999999}.tar")
    with pytest.raises(DataError, match="no shard"):
        open_shards(tmp_path / "e-*.tar")


@pytest.mark.parametrize("file", ["classnames.txt", "classes.txt"])
def test_names_for_numbers(tmp_path: Path, file: str) -> None:
    shard(tmp_path / "s.tar", "2", "0")
    (tmp_path / file).write_text("tench\ngoldfish\r\nshark\n")
    dataset = open_shards(tmp_path)
    assert dataset.classes == ("tench", "goldfish", "shark")
    assert listing(dataset) == [(0, "shark"), (1, "tench")]
    shard(tmp_path / "s.tar", "0", "3")
    with pytest.raises(DataError, match=r"s\.tar#0001: the label 3 is beyond the 3 class names"):
        open_shards(tmp_path)
    (tmp_path / file).write_text("crane\nheron\nstork\ncrane\n")
    with pytest.raises(DataError, match="names two classes 'crane'"):
        open_shards(tmp_path / "s.tar")


def test_recognises_tars_but_not_the_archive_beside_class_folders(tmp_path: Path) -> None:
    assert not recognises(tmp_path)
    shard(tmp_path / "s.tar", "a")
    (tmp_path / ".cache").mkdir()
    assert recognises(tmp_path)
    assert recognises(Path("data.tar.gz"))
    (tmp_path / "cats").mkdir()
    assert not recognises(tmp_path)


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        (gzip.compress(tar([("0.png", b"x")])), "is compressed.*gunzip"),
        (b"", "cannot read the shard .*: empty file"),
        (b"not a tar file" * 100, "cannot read the shard"),
        (tar([("cats/1.jpg", png(1)), ("dogs/1.jpg", png(2))]), "no image with a label.*unpack it"),
        (tar([("0.png", png(0)), ("0.cls", b"\xff")]), r"s\.tar#0: the label is not UTF-8"),
        (tar([("0.png", png(0)), ("0.cls", b" ")]), r"s\.tar#0: a label must be"),
        (tar([("0.png", png(0)), ("0.json", b"{")]), r"s\.tar#0: its \.json is not JSON"),
        (tar([("0.png", png(0)), ("0.json", b'{"label": 0.5}')]), r"s\.tar#0: a label must be"),
        (tar([("0.png", png(0)), ("0.json", b'{"label": [[1]]}')]), r"s\.tar#0: a label must be"),
    ],
)
def test_what_cannot_be_used_is_said(tmp_path: Path, stored: bytes, message: str) -> None:
    (tmp_path / "s.tar").write_bytes(stored)
    with pytest.raises(DataError, match=message):
        open_shards(tmp_path / "s.tar")


def test_missing_shards_are_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no \.tar file"):
        open_shards(tmp_path)
    with pytest.raises(DataError, match="there is no shard"):
        open_shards(tmp_path / "s.tar")
    source = open_shards(shard(tmp_path / "s.tar", "a")).splits["train"]
    (tmp_path / "s.tar").unlink()
    with pytest.raises(UnreadableImage, match="no such file"):
        source.sample(0)


TWO = tar([("0.cls", b"a"), ("0.png", png(0)), ("1.cls", b"b"), ("1.png", png(1))], tarfile.USTAR_FORMAT)


@pytest.mark.parametrize("cut", range(513, 4096, 256))
def test_a_shard_cut_short_inside_a_member_is_damaged(tmp_path: Path, cut: int) -> None:
    assert TWO[3584:3587] == png(1)[:3]  # four headers and four contents of 512 bytes each
    (tmp_path / "s.tar").write_bytes(TWO[:cut])
    with pytest.raises(DataError):
        open_shards(tmp_path / "s.tar")


@pytest.mark.parametrize("member", range(4))
def test_a_damaged_header_is_not_taken_for_the_end(tmp_path: Path, member: int) -> None:
    damaged = bytearray(TWO)
    damaged[member * 1024 + 10] ^= 1
    (tmp_path / "s.tar").write_bytes(damaged)
    with pytest.raises(DataError, match="cannot read the shard"):
        open_shards(tmp_path / "s.tar")


def with_size(header: bytes, size: bytes, kind: bytes) -> bytes:
    """A header with another size and type, and the checksum that belongs to it."""
    header = header[:124] + size + header[136:148] + b" " * 8 + kind + header[157:]
    return header[:148] + f"{sum(header):06o}\0 ".encode() + header[156:]


@pytest.mark.parametrize("size", [b"\xff" * 11 + b"\x00", b"\x80" + b"\xff" * 11, b"77777777777\0", b"-0000001660\0"])
@pytest.mark.parametrize("kind", [b"0", b"S"])  # a plain file, a sparse one
def test_impossible_sizes_end_in_an_error(tmp_path: Path, size: bytes, kind: bytes) -> None:
    (tmp_path / "s.tar").write_bytes(TWO[:1024] + with_size(TWO[1024:1536], size, kind) + TWO[1536:])
    with pytest.raises(DataError):
        open_shards(tmp_path / "s.tar")


damage = st.lists(st.tuples(st.integers(0, len(TWO) - 1), st.integers(0, 255)), max_size=6)


@settings(deadline=None, max_examples=200)
@given(changes=damage, keep=st.integers(0, len(TWO)), rest=st.binary(max_size=100))
def test_garbage_gives_a_data_set_or_a_sentence(
    changes: list[tuple[int, int]], keep: int, rest: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    stored = bytearray(TWO)
    for place, value in changes:
        stored[place] = value
    file = tmp_path_factory.getbasetemp() / "garbage.tar"
    file.write_bytes(bytes(stored[:keep]) + rest)
    try:
        source = open_shards(file).splits["train"]
    except UserError:
        return
    for index in range(len(source)):
        with contextlib.suppress(UnreadableImage):
            assert source.sample(index).image.dtype == np.uint8
