from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest

from vitrail.data.dataset import open_dataset
from vitrail.errors import DataError
from vitrail.proofs.data import TEXTS, Unavailable, cifar10, mnist, text, unpacked


@pytest.fixture(autouse=True)
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """No data folder, a fresh cache, and a hub that cannot be reached; the list says what it was asked for."""
    asked = []

    def unreachable(repository: str, **settings: Any) -> str:
        asked.append({"repository": repository, **settings})
        raise ConnectionError("no network")

    monkeypatch.delenv("VITRAIL_DATA", raising=False)
    monkeypatch.setenv("VITRAIL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    return asked


def pack(archive: Path, files: dict[str, bytes]) -> Path:
    archive.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(archive, "w:gz") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return archive


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


REAL = os.environ.get("VITRAIL_DATA")  # before the fixture takes it away
FILES = {"train/cat/0.jpg": b"a cat", "train/dog/0.jpg": b"a dog", "test/cat/1.jpg": b"another cat"}


def test_a_folder_is_taken_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hub: list) -> None:
    for name in ("mnist", "cifar10_jpg"):
        (tmp_path / "data" / name).mkdir(parents=True)
    assert mnist(tmp_path / "data") == tmp_path / "data" / "mnist"
    assert cifar10(tmp_path / "data") == tmp_path / "data" / "cifar10_jpg"
    monkeypatch.setenv("VITRAIL_DATA", str(tmp_path / "data"))
    assert mnist(None) == tmp_path / "data" / "mnist"
    assert hub == []


def test_the_folder_that_is_named_goes_before_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("one", "two"):
        (tmp_path / name / "mnist").mkdir(parents=True)
    monkeypatch.setenv("VITRAIL_DATA", str(tmp_path / "one"))
    assert mnist(tmp_path / "two") == tmp_path / "two" / "mnist"


def test_an_archive_is_unpacked_once(tmp_path: Path) -> None:
    pack(tmp_path / "data" / "cifar10_jpg.tgz", FILES)
    folder = cifar10(tmp_path / "data")
    assert folder.parent == tmp_path / "cache"
    assert tree(folder) == FILES
    assert tree(tmp_path / "data").keys() == {"cifar10_jpg.tgz"}
    unpacked_at = folder.stat().st_ino
    assert cifar10(tmp_path / "data") == folder
    assert folder.stat().st_ino == unpacked_at
    assert list((tmp_path / "cache").iterdir()) == [folder]


def test_another_archive_of_the_same_name_is_not_mistaken_for_it(tmp_path: Path) -> None:
    one = unpacked(pack(tmp_path / "one" / "cifar10_jpg.tgz", FILES))
    two = unpacked(pack(tmp_path / "two" / "cifar10_jpg.tgz", {"train/cat/0.jpg": b"a newer cat"}))
    assert tree(one) == FILES
    assert tree(two) == {"train/cat/0.jpg": b"a newer cat"}


def test_a_process_that_was_faster_is_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = pack(tmp_path / "cifar10_jpg.tgz", FILES)
    extract = tarfile.TarFile.extractall

    def slowly(tar: tarfile.TarFile, path: Path, **settings: Any) -> None:
        extract(tar, path, **settings)
        name = path.name.removeprefix(".").rpartition(".")[0]
        if not (path.parent / name).exists():  # meanwhile, in another process
            extract(tar, path.parent / name, **settings)

    monkeypatch.setattr(tarfile.TarFile, "extractall", slowly)
    folder = unpacked(archive)
    assert tree(folder) == FILES
    assert list((tmp_path / "cache").iterdir()) == [folder]


def test_an_archive_that_leads_elsewhere_is_refused(tmp_path: Path) -> None:
    archive = pack(tmp_path / "cifar10_jpg.tgz", {**FILES, "../escaped.txt": b"harm"})
    with pytest.raises(DataError, match="cannot unpack"):
        unpacked(archive)
    assert tree(tmp_path).keys() == {"cifar10_jpg.tgz"}


def test_an_absolute_path_in_an_archive_stays_inside(tmp_path: Path) -> None:
    folder = unpacked(pack(tmp_path / "cifar10_jpg.tgz", {str(tmp_path / "absolute.txt"): b"harm"}))
    assert not (tmp_path / "absolute.txt").exists()
    assert list(tree(folder).values()) == [b"harm"]


@pytest.mark.parametrize("keep", [0, 10, -20])
def test_a_damaged_archive_is_named_and_leaves_nothing(tmp_path: Path, keep: int) -> None:
    archive = pack(tmp_path / "cifar10_jpg.tgz", {**FILES, "train/cat/1.jpg": bytes(range(256)) * 99})
    archive.write_bytes(archive.read_bytes()[:keep])
    with pytest.raises(DataError, match=r"cannot unpack .*cifar10_jpg\.tgz"):
        unpacked(archive)
    assert list((tmp_path / "cache").iterdir()) == []


def test_from_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def snapshot_download(repository: str, *, repo_type: str, allow_patterns: str) -> str:
        assert repo_type == "dataset"
        return str(tmp_path / repository / allow_patterns.removesuffix("/*.parquet") / "..")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    assert mnist(None).resolve() == tmp_path / "ylecun" / "mnist" / "mnist"
    assert cifar10(tmp_path).resolve() == tmp_path / "uoft-cs" / "cifar10" / "plain_text"


def test_without_data_and_network_a_sentence_says_what_to_do(tmp_path: Path, hub: list) -> None:
    with pytest.raises(Unavailable, match=r"mnist is not in any data folder.*ConnectionError.*--data DIR"):
        mnist(None)
    with pytest.raises(Unavailable, match=r"cifar10_jpg is not in .*nowhere.*--data DIR"):
        cifar10(tmp_path / "nowhere")
    assert [request["repository"] for request in hub] == ["ylecun/mnist", "uoft-cs/cifar10"]


def test_text_is_in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "text" / "wikitext-2").mkdir(parents=True)
    assert text("wikitext-2", tmp_path) == tmp_path / "text" / "wikitext-2"
    monkeypatch.setenv("VITRAIL_DATA", str(tmp_path))
    assert text("wikitext-2", None) == tmp_path / "text" / "wikitext-2"
    with pytest.raises(Unavailable, match=r"text/tinyshakespeare is not in .*; it is at https://github.*--data DIR"):
        text("tinyshakespeare", None)


@pytest.mark.skipif(not REAL, reason="the real texts are looked for in $VITRAIL_DATA, which is not set")
@pytest.mark.parametrize("name", TEXTS)
def test_real_texts(name: str) -> None:
    assert any(file.stat().st_size > 10_000 for file in text(name, Path(str(REAL))).iterdir())


def test_offline_the_real_client_asks_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.delenv("VITRAIL_DATA", raising=False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "empty"))
    with pytest.raises(Unavailable, match="--data DIR"):
        mnist(None)


@pytest.mark.skipif(not REAL, reason="the real images are looked for in $VITRAIL_DATA, which is not set")
@pytest.mark.parametrize(
    ("find", "channels", "images"),
    [(mnist, 1, {"train": 60_000, "test": 10_000}), (cifar10, 3, {"train": 10_000, "test": 2_000})],
)
def test_real_data(find: Callable[[Path | None], Path], channels: int, images: dict[str, int]) -> None:
    dataset = open_dataset(str(find(Path(str(REAL)))))
    sizes = {split: len(source) for split, source in dataset.splits.items()}
    assert sizes["train"] + sizes["validation"] == images["train"]
    assert sizes["test"] == images["test"]
    assert (len(dataset.classes), dataset.channels) == (10, channels)
