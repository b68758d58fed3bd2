"""With a cache the batches are the same, to the last bit; the images are only decoded once."""

from __future__ import annotations

import os
import pickle
import sys
from dataclasses import replace
from pathlib import Path

import PIL.Image
import pytest

from vitrail.data import cache, picture, read
from vitrail.data.augment import PRESETS, Augment
from vitrail.data.cache import Cached, cached, cached_source, limit_of
from vitrail.data.folder import ImageFiles
from vitrail.data.loader import EvaluationBatches, TrainingBatches, load_batches
from vitrail.data.mix import Mix
from vitrail.data.preprocess import Preprocess
from vitrail.data.sample import Batch, Label
from vitrail.data.shapes import Shapes
from vitrail.data.source import Dataset, Relabelled, Source, Subset
from vitrail.errors import SettingError, UnreadableImage

pytestmark = [
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
    pytest.mark.usefixtures("own_cache"),
]

PREPROCESS = Preprocess((32, 32), interpolation="bilinear")


@pytest.fixture
def images(tmp_path: Path) -> ImageFiles:
    """JPEG, PNG and grey images of several sizes; the last is damaged."""
    folder, files = tmp_path / "images", []
    folder.mkdir()
    for number in range(11):
        scene = Shapes(11, size=96 + 40 * (number % 3)).sample(number).image
        files.append(f"{number}.{'png' if number % 4 == 3 else 'jpg'}")
        PIL.Image.fromarray(scene[:, 8:, 0] if number % 5 == 4 else scene[:, 8:]).save(folder / files[-1])
    (folder / files[-1]).write_bytes(b"damaged")
    return ImageFiles(str(folder), files, [Label(number % 2) for number in range(11)])


def training(source: Source, augment: Augment = PRESETS["light"]) -> TrainingBatches:
    return TrainingBatches(source, 2, PREPROCESS, augment, Mix(cutmix=1.0), 4, seed=1)


def contents(batches: list[Batch]) -> list[tuple[object, ...]]:
    return [
        (b.images.numpy().tobytes(), b.names, None if b.labels is None else b.labels.tolist(), len(b.unreadable))
        for b in batches
    ]


def with_cache(source: Source, size: str = "100MB") -> Source:
    found = cached_source(source, "images", size)
    assert isinstance(found, Cached)
    return found


def nothing_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("an image was decoded")

    monkeypatch.setattr(picture, "of_bytes", fail)
    monkeypatch.setattr(read, "decode", fail)


@pytest.mark.parametrize("preset", ["none", "light", "strong"])
@pytest.mark.parametrize("size", ["100MB", "60kB"])  # for all, and for some of the images
def test_the_batches_are_the_same_with_a_cache(images: ImageFiles, preset: str, size: str) -> None:
    augment = PRESETS[preset]
    expected = contents([training(images, augment)[step] for step in range(5)])
    for _ in range(2):  # while it is filled, and from it
        batches = training(with_cache(images, size), augment)
        assert contents([batches[step] for step in range(5)]) == expected
    again = load_batches(training(with_cache(images, size), augment), 0, 5, 2)
    assert contents(list(again)) == expected


def test_the_views_of_an_evaluation_are_the_same_with_a_cache(images: ImageFiles) -> None:
    relabelled = Relabelled(Subset(images, [3, 1, 10, 4]), (1, 0))
    expected = EvaluationBatches(relabelled, 2, PREPROCESS, 4)[0]
    for source in (with_cache(relabelled), with_cache(relabelled), Subset(with_cache(relabelled), range(4))):
        batch, numbers = EvaluationBatches(source, 2, PREPROCESS, 4)[0]
        assert contents([batch]) == contents([expected[0]])
        assert numbers == expected[1] == [0, 1, 3]


def test_the_second_time_nothing_is_decoded(images: ImageFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    source = with_cache(Subset(images, range(10)))
    first = contents([training(source)[step] for step in range(6)]), EvaluationBatches(source, 2, PREPROCESS, 9)[0]
    cache._open.clear()  # as another process opens it
    nothing_is_decoded(monkeypatch)
    source = with_cache(Subset(images, range(10)))
    assert contents([training(source)[step] for step in range(6)]) == first[0]
    assert contents([EvaluationBatches(source, 2, PREPROCESS, 9)[0][0]]) == contents([first[1][0]])


def test_workers_fill_what_this_process_reads(images: ImageFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    source = with_cache(Subset(images, range(10)))
    expected = contents(list(load_batches(training(source), 0, 6, 2)))
    nothing_is_decoded(monkeypatch)
    assert contents([training(source)[step] for step in range(6)]) == expected


def test_further_views_are_cut_from_what_is_kept(images: ImageFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    def batches(source: Source) -> TrainingBatches:
        crop, small = Augment(crop_scale=(0.4, 1.0), flip=0.5), Augment(crop_scale=(0.1, 0.4), crop_tiny=True)
        further = ((crop, PREPROCESS), (small, Preprocess((16, 16))))
        return replace(training(source, crop), further=further)

    plain = Subset(images, range(10))
    expected = [batches(plain)[step] for step in range(4)]
    source = with_cache(plain)
    for attempt in range(2):
        found = [batches(source)[step] for step in range(4)]
        assert contents(found) == contents(expected)
        assert all(
            (a == b).all() for x, y in zip(found, expected, strict=True) for a, b in zip(x.views, y.views, strict=True)
        )
        if attempt == 0:
            nothing_is_decoded(monkeypatch)


def test_large_images_are_kept_no_larger_than_their_smallest_crop_needs(tmp_path: Path) -> None:
    PIL.Image.fromarray(Shapes(1, size=800).sample(0).image).save(tmp_path / "large.jpg")
    images = ImageFiles(str(tmp_path), ["large.jpg"] * 4, [Label(0)] * 4)
    training(with_cache(images))[0]  # crops of at least 35 % of 800 x 800 pixels for 32 x 32: an eighth
    (store,) = cache._open.values()
    assert store is not None
    kept = [store._pixels(slot, store._entry(slot)) for slot in range(store.slots) if any(store._entry(slot)[:16])]
    assert [(found.pixels.shape, found.whole) for found in kept if found] == [((100, 100, 3), (800, 800))]


def test_a_file_that_changes_is_decoded_anew(images: ImageFiles) -> None:
    before = with_cache(images).view(0, PREPROCESS)
    PIL.Image.new("RGB", (90, 90), "red").save(images.name(0))
    os.utime(images.name(0), ns=(0, 12345))
    found = with_cache(images).view(0, PREPROCESS).image
    assert (found != before.image).any()
    assert found[16, 16, 0] > 250


def test_a_file_that_is_gone_is_unreadable_as_ever(images: ImageFiles) -> None:
    source = with_cache(images)
    source.view(0, PREPROCESS)
    Path(images.name(0)).unlink()
    with pytest.raises(UnreadableImage, match="no such file"):
        source.view(0, PREPROCESS)
    with pytest.raises(UnreadableImage, match="no such file"):
        source.picture(0)


def test_what_a_person_is_told(images: ImageFiles, capsys: pytest.CaptureFixture[str]) -> None:
    with_cache(images, "2MiB")
    with_cache(images, "2MiB")
    said = capsys.readouterr().err
    assert said.count("cache: ") == 1
    assert str(cache.folder()) in said
    assert "of at most 2.0 MiB; `vitrail cache` shows and removes" in said


def test_a_folder_that_cannot_be_written_is_said_and_done_without(
    images: ImageFiles, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VITRAIL_CACHE", images.name(0))  # a file
    source = cached_source(images, "images", "1GB")
    assert contents([training(source)[0]]) == contents([training(images)[0]])
    assert capsys.readouterr().err.count("cannot be used") == 1


def test_images_that_need_no_decoding_are_not_kept(capsys: pytest.CaptureFixture[str]) -> None:
    shapes = Shapes(5)
    assert cached_source(shapes, "shapes", "auto") is shapes
    assert "need no decoding" in capsys.readouterr().err


def test_all_splits_share_one_file_and_none_means_none(images: ImageFiles) -> None:
    dataset = Dataset("photos", "folder", ("a", "b"), {"train": images, "test": Subset(images, [0])})
    assert cached(dataset, "none").splits["train"] is images
    splits = cached(dataset, "auto").splits
    for source in splits.values():
        assert isinstance(source, Cached)
        source.view(0, PREPROCESS)
    assert len(list(cache.folder().glob("*.pixels"))) == 1


def test_a_source_with_a_cache_travels_to_workers(images: ImageFiles) -> None:
    source = with_cache(images)
    again = pickle.loads(pickle.dumps(source))
    assert again == source
    assert len(again) == len(images)
    assert (again.name(2), again.label(2), again.encoded(2)) == (images.name(2), images.label(2), images.encoded(2))


@pytest.mark.parametrize(
    ("words", "size"),
    [
        ("4GiB", 2**32),
        ("4gib", 2**32),
        ("1.5 MB", 1_500_000),
        ("100k", 100_000),
        ("7", 7),
        ("2T", 2 * 10**12),
        ("none", 0),
    ],
)
def test_sizes_in_words(words: str, size: int) -> None:
    assert limit_of(words) == size


@pytest.mark.parametrize("words", ["", "0", "many", "-1GB", "4 parsecs", "GiB", "1.2.3G"])
def test_sizes_that_are_none_are_refused(words: str) -> None:
    with pytest.raises(SettingError, match="--cache must be none, auto, or a size such as 4GiB"):
        limit_of(words)


def test_bytes_in_words() -> None:
    words = [cache.in_words(size) for size in (0, 1023, 1024, 1536, 5 * 2**30, 3 * 2**50)]
    assert words == ["0 B", "1,023 B", "1.0 KiB", "1.5 KiB", "5.0 GiB", "3,072 TiB"]


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="these have folders of their own for it")
def test_where_caches_lie(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VITRAIL_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert cache.folder() == Path("/x/vitrail")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache.folder() == Path.home() / ".cache" / "vitrail"
