"""Splits: numbers for classes, shares of each class, missing splits, leaks."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vitrail.data.sample import Label, Labels, Sample
from vitrail.data.source import Dataset, Source, SplitName, Subset
from vitrail.data.split import by_split, complete, keep_share, leak_notes, leaks, number_labels, split_named, stratified
from vitrail.errors import DataError, UnreadableImage


@dataclass(frozen=True)
class Memory(Source):
    """Images as given: a name, a label and the stored bytes, None if they cannot be read."""

    images: Sequence[tuple[str, Label | Labels | None, bytes | None]]

    def __len__(self) -> int:
        return len(self.images)

    def name(self, index: int) -> str:
        return self.images[index][0]

    def label(self, index: int) -> Label | Labels | None:
        return self.images[index][1]

    def encoded(self, index: int) -> bytes:
        stored = self.images[index][2]
        if stored is None:
            raise UnreadableImage(self.name(index), "it is not there")
        return stored

    def sample(self, index: int) -> Sample:
        return Sample(np.zeros((1, 1, 1), np.uint8), self.name(index), self.label(index))


class SizedMemory(Memory):
    """The same, but it knows sizes, and notes what is read."""

    def encoded_size(self, index: int) -> int:
        return len(super().encoded(index))

    def encoded(self, index: int) -> bytes:
        READ.append(self.name(index))
        return super().encoded(index)


READ: list[str] = []


def labelled(*numbers: int) -> Memory:
    return Memory([(str(index), Label(number), bytes([index])) for index, number in enumerate(numbers)])


def dataset(many_labels: bool = False, **splits: Source) -> Dataset:
    return Dataset("data", "memory", ("ant", "bee", "cow"), splits, many_labels=many_labels)  # type: ignore[arg-type]


def test_words_for_splits() -> None:
    words = ["train", "Training", " val ", "VALID", "validation", "dev", "test", "testing", "trainer", ""]
    t, v, e = "train", "validation", "test"
    assert [split_named(word) for word in words] == [t, t, v, v, v, v, e, e, None, None]


def test_files_by_the_beginning_of_their_name_then_by_their_folder() -> None:
    root = Path("root")
    files = [
        "train-0.tar",
        "val_1.tar",
        "TEST2.tar",
        "testbed.tar",
        "other.tar",
        "val/3.tar",
        "data/test-4.tar",
        "x/5.tar",
    ]
    assert by_split([root / file for file in files], root) == {
        "train": [root / file for file in ("train-0.tar", "testbed.tar", "other.tar", "x/5.tar")],
        "validation": [root / file for file in ("val_1.tar", "val/3.tar")],
        "test": [root / file for file in ("TEST2.tar", "data/test-4.tar")],
    }
    assert by_split([Path("val/3.tar")], Path("val")) == {"train": [Path("val/3.tar")]}
    assert list(by_split([Path("val/a.tar"), Path("val/b.tar")], Path("val"))) == ["train"]


def test_classes_are_numbered_in_order() -> None:
    classes, labels = number_labels("x", {"train": ["b", "a", "b"], "test": ["a"]})
    assert classes == ("a", "b")
    assert labels == {"train": (Label(1), Label(0), Label(1)), "test": (Label(0),)}
    assert number_labels("x", {"train": ["10", "9", "010"]})[0] == ("9", "010", "10")
    assert number_labels("x", {"train": ["10", "9", "x"]})[0] == ("10", "9", "x")
    assert number_labels("x", {"train": ["b"]}, ["c", "b", "a"]) == (("c", "b", "a"), {"train": (Label(1),)})


def test_many_labels_are_numbered_ascending_and_once() -> None:
    classes, labels = number_labels("x", {"train": [("c", "a", "c"), (), ("b",)]})
    assert classes == ("a", "b", "c")
    assert labels == {"train": (Labels((0, 2)), Labels(()), Labels((1,)))}


def test_images_of_one_class_share_one_label() -> None:
    _, labels = number_labels("x", {"train": ["a", "b"] * 1000})
    assert len({id(label) for label in labels["train"]}) == 2


@pytest.mark.parametrize(
    ("names", "classes", "message"),
    [
        ({"test": ["a"], "validation": ["a"]}, None, "x has test and validation but no train"),
        ({"train": ["a"], "test": ["a", "b"]}, None, "the class 'b' occurs in test but not in train"),
        ({"train": [("a",)], "test": [("a", "b")]}, None, "the class 'b' occurs in test but not in train"),
        ({"train": ["a"]}, ["a", "b", "a"], "x names two classes 'a'"),
    ],
)
def test_classes_that_do_not_fit_are_named(names: dict, classes: list | None, message: str) -> None:
    with pytest.raises(DataError, match=message):
        number_labels("x", names, classes)


@settings(deadline=None, max_examples=100)
@given(
    labels=st.lists(st.sampled_from("abc") | st.integers(0, 2) | st.none(), max_size=60),
    shares=st.lists(st.integers(1, 100), min_size=1, max_size=4),
    seed=st.integers(0, 2**40),
)
def test_stratified_parts(labels: list[Hashable], shares: list[int], seed: int) -> None:
    parts = stratified(labels, shares, seed)
    assert sorted(itertools.chain(*parts)) == list(range(len(labels)))
    assert all(part == sorted(part) for part in parts)
    assert parts == stratified(labels, shares, seed)
    for label, images in Counter(labels).items():
        counts = [sum(labels[index] == label for index in part) for part in parts]
        ideal = [images * share / sum(shares) for share in shares]
        if images >= len(parts):
            assert min(counts) >= 1
        else:  # the parts with the largest shares have one each
            assert sorted(counts)[-images:] == [1] * images
            assert min(share for share, count in zip(shares, counts, strict=True) if count) >= max(
                [share for share, count in zip(shares, counts, strict=True) if not count]
            )
        if min(ideal) >= 1:
            assert max(abs(count - wanted) for count, wanted in zip(counts, ideal, strict=True)) < 1


def test_seeds_part_differently_and_every_image_can_be_held_out() -> None:
    held_out = [stratified(["a"] * 10, (4, 1), seed)[1] for seed in range(100)]
    assert len({tuple(part) for part in held_out}) > 20
    assert set(itertools.chain(*held_out)) == set(range(10))


def in_split(data: Dataset, split: SplitName) -> list[str]:
    source = data.splits[split]
    return [source.name(index) for index in range(len(source))]


def test_train_alone_is_parted_in_three() -> None:
    source = labelled(*[0] * 20, *[1] * 10)
    done = complete(dataset(train=source), seed=3)
    assert {split: len(part) for split, part in done.splits.items()} == {"train": 21, "validation": 3, "test": 6}
    for part in done.splits.values():
        counts = Counter(part.label(index).index for index in range(len(part)))
        assert counts[0] == 2 * counts[1]
    assert sorted(itertools.chain(*(in_split(done, split) for split in done.splits)), key=int) == [
        str(n) for n in range(30)
    ]
    assert done.notes == (
        "The images were parted by chance, class by class (seed 3): 70 % train, 10 % validation, 20 % test.",
    )


def test_a_given_test_split_stays_as_it_is() -> None:
    test = labelled(0, 1)
    done = complete(dataset(train=labelled(*[0] * 20, *[1] * 10), test=test), seed=0)
    assert done.splits["test"] is test
    assert (len(done.splits["train"]), len(done.splits["validation"])) == (27, 3)
    assert done.notes == (
        "The given training images were parted by chance, class by class (seed 0): 90 % train, 10 % validation.",
    )


def test_a_given_validation_split_leaves_all_as_it_is() -> None:
    given = dataset(train=labelled(0, 1), validation=labelled(0, 1))
    assert complete(given, seed=0) is given


def test_a_class_with_a_single_image_cannot_be_parted() -> None:
    with pytest.raises(
        DataError, match=r"the class 'bee' has a single image, .* add images of it or leave the class out"
    ):
        complete(dataset(train=labelled(0, 0, 0, 1)), seed=0)


def test_too_few_images_for_three_splits() -> None:
    with pytest.raises(DataError, match="4 images in train: too few for train, validation, test"):
        complete(dataset(train=labelled(0, 0, 1, 1)), seed=0)


def test_many_labels_are_parted_by_the_rarest() -> None:
    labels = [Labels((0,))] * 10 + [Labels((0, 1))] * 10 + [Labels((0, 1, 2))] * 10 + [Labels(())] * 10
    source = Memory([(str(index), label, b"") for index, label in enumerate(labels)])
    done = complete(dataset(many_labels=True, train=source), seed=0)
    for split, images in (("train", 7), ("validation", 1), ("test", 2)):
        part = done.splits[split]
        assert Counter(part.label(index) for index in range(len(part))) == dict.fromkeys(set(labels), images)


def test_with_many_labels_a_rare_label_stays_in_train() -> None:
    labels = [Labels((0, 1)), *[Labels((0,))] * 10]
    source = Memory([(str(index), label, b"") for index, label in enumerate(labels)])
    assert "0" in in_split(complete(dataset(many_labels=True, train=source), seed=0), "train")


@settings(deadline=None, max_examples=50)
@given(
    labels=st.lists(st.integers(0, 3), min_size=1, max_size=200),
    shares=st.lists(st.floats(0.01, 1), min_size=2, max_size=4),
    seed=st.integers(0, 1000),
)
def test_shares_of_the_training_images(labels: list[int], shares: list[float], seed: int) -> None:
    whole = dataset(train=labelled(*labels), test=labelled(0))
    smaller: set[str] = set()
    for share in sorted(shares):
        some = keep_share(whole, share, seed)
        assert some.splits["test"] is whole.splits["test"]
        seen = Counter(in_split(some, "train"))
        assert seen.total() == len(labels)  # an epoch stays as long
        assert max(seen.values()) - min(seen.values()) <= 1
        assert smaller <= seen.keys()
        smaller = set(seen)
        often = Counter(labels[int(name)] for name in in_split(some, "train"))
        assert max(abs(often[k] - len(labels) * sum(labels[int(n)] == k for n in seen) / len(seen)) for k in often) < 3
        kept = Counter(labels[int(name)] for name in seen)
        assert kept == {label: max(1, round(share * count)) for label, count in Counter(labels).items()}
        assert in_split(keep_share(whole, share, seed), "train") == in_split(some, "train")


def test_a_share_says_how_many_images_there_are() -> None:
    whole = dataset(train=labelled(*[0, 1] * 20))
    assert keep_share(whole, 1, seed=0) is whole
    (note,) = keep_share(whole, 0.25, seed=0).notes
    assert note == "Of 40 training images a share of 0.25 is used, 10, each about 4 times in an epoch."
    chosen = {tuple(sorted(set(in_split(keep_share(whole, 0.25, seed), "train")))) for seed in range(20)}
    assert len(chosen) == 20


def test_leaks_are_pairs_of_equal_bytes_in_two_splits() -> None:
    train = Memory(
        [("a", Label(0), b"one"), ("b", Label(0), b"two"), ("c", Label(0), b"one"), ("gone", Label(0), None)]
    )
    test = Memory(
        [("d", Label(0), b"six"), ("e", Label(0), b"one"), ("f", Label(0), b"two"), ("g", Label(0), b"longer")]
    )
    validation = Memory([("h", Label(0), b"six"), ("i", Label(0), b"six"), ("lost", Label(0), None)])
    data = dataset(test=test, train=Subset(train, [3, 2, 1, 0]), validation=validation)
    assert sorted(leaks(data)) == [("b", "f"), ("c", "e"), ("h", "d")]
    assert leak_notes(data) == [
        "2 images of test are also in train: e, f",
        "1 image of test is also in validation: d",
    ]
    assert leaks(dataset(train=train)) == []


def test_a_note_names_the_first_three() -> None:
    train = Memory([("a", Label(0), b"one")])
    test = Memory([(name, Label(0), b"one") for name in "bcdef"])
    assert leak_notes(dataset(train=train, test=test)) == ["5 images of test are also in train: b, c, d, …"]


def test_only_images_whose_size_occurs_twice_are_read() -> None:
    READ.clear()
    train = SizedMemory(
        [("a", Label(0), b"12"), ("b", Label(0), b"123"), ("c", Label(0), None), ("d", Label(0), b"12")]
    )
    test = SizedMemory([("e", Label(0), b"1234"), ("f", Label(0), b"xyz")])
    assert leaks(dataset(train=Subset(train, [0, 1, 2, 3]), test=test)) == []
    assert READ == ["b", "f"]


stored = st.lists(st.sampled_from([b"", b"a", b"b", b"aa", None]), max_size=6)


@settings(deadline=None, max_examples=100)
@given(train=stored, validation=stored, test=stored)
def test_leaks_against_comparing_everything(train: list, validation: list, test: list) -> None:
    contents = {"train": train, "validation": validation, "test": test}
    sources = {
        split: Memory([(f"{split}{index}", None, each) for index, each in enumerate(images)])
        for split, images in contents.items()
    }
    expected = {
        (f"{earlier}{contents[earlier].index(each)}", f"{later}{index}")
        for earlier, later in itertools.combinations(contents, 2)
        for index, each in enumerate(contents[later])
        if each is not None and each in contents[earlier]
    }
    found = leaks(dataset(**sources))
    assert len(found) == len(expected)
    assert set(found) == expected
