"""Training, validation and test: what they are called, how missing ones are made, what must not be in two of them."""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from vitrail.data.rng import generator
from vitrail.data.sample import Label, Labels
from vitrail.data.source import Dataset, Source, SplitName, Subset
from vitrail.errors import DataError, UnreadableImage

WORDS: dict[str, SplitName] = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}
ORDER: tuple[SplitName, ...] = ("train", "validation", "test")


def split_named(word: str) -> SplitName | None:
    """The split that a folder's name or a cell of a table means, None if it means none."""
    return WORDS.get(word.strip().lower())


def by_split(files: Sequence[Path], folder: Path) -> dict[SplitName, list[Path]]:
    """Files grouped by the split that their name begins with (``train-00000-of-00002.parquet``, ``val_3.tar``).

    Without such a beginning the folder's name counts, if it lies below ``folder``; all others, and a file that is
    alone, are ``train``.
    """
    if len(files) == 1:
        return {"train": list(files)}
    groups: dict[SplitName, list[Path]] = {}
    for file in files:
        beginning = re.split("[^a-z]", file.name.lower())[0]
        below = file.parent.name if file.parent != folder else ""
        groups.setdefault(split_named(beginning) or split_named(below) or "train", []).append(file)
    return groups


def number_labels(
    where: str, names: Mapping[SplitName, Sequence[str | tuple[str, ...]]], classes: Sequence[str] | None = None
) -> tuple[tuple[str, ...], dict[SplitName, tuple[Label | Labels, ...]]]:
    """Turn class names into numbers.

    Args:
        where: the data, for errors.
        names: for each split the class name of each image, or a tuple of all its class names.
        classes: the classes in their order; by default those of ``train``, sorted: as numbers if all are numbers.

    Returns:
        the classes, and for each split the labels; images of one class share one object, so a million stay small.

    Raises:
        DataError: there is no ``train``, a split has a class that is not known, or two classes have one name.
    """
    if "train" not in names:
        raise DataError(f"{where} has {' and '.join(names)} but no train split; add the images to train on.")
    if classes is None:
        classes = _sorted_classes(names["train"])
    numbers = {name: number for number, name in enumerate(classes)}
    if len(numbers) < len(classes):
        twice = next(name for name, count in Counter(classes).items() if count > 1)
        raise DataError(f"{where} names two classes '{twice}'; give each a name of its own.")
    labels = {}
    for split, of_split in names.items():
        distinct = dict.fromkeys(of_split)
        _refuse_unknown(where, split, distinct, numbers)
        labels_of = {name: _label(name, numbers) for name in distinct}
        labels[split] = tuple(labels_of[name] for name in of_split)
    return tuple(classes), labels


def _sorted_classes(names: Iterable[str | tuple[str, ...]]) -> list[str]:
    found = {name for entry in dict.fromkeys(names) for name in _as_tuple(entry)}
    if all(re.fullmatch("[0-9]{1,9}", name) for name in found):
        return sorted(found, key=lambda name: (int(name), name))
    return sorted(found)


def _refuse_unknown(where: str, split: SplitName, names: Iterable[str | tuple[str, ...]], known: Mapping) -> None:
    for entry in names:
        for name in _as_tuple(entry):
            if name not in known:
                raise DataError(
                    f"{where}: the class '{name}' occurs in {split} but not in train; "
                    "add training images of it or leave it out."
                )


def _label(name: str | tuple[str, ...], numbers: Mapping[str, int]) -> Label | Labels:
    if isinstance(name, str):
        return Label(numbers[name])
    return Labels(tuple(sorted({numbers[each] for each in name})))


def _as_tuple(name: str | tuple[str, ...]) -> tuple[str, ...]:
    return (name,) if isinstance(name, str) else name


def stratified(labels: Sequence[Hashable], shares: Sequence[float], seed: int) -> list[list[int]]:
    """Part the images so that each part has its share of every class.

    Args:
        labels: the class of each image.
        shares: the size of each part, in any unit. Each class keeps to them as nearly as whole images allow, but has at
            least one image in each part; with fewer images than parts, the smallest parts go without.
        seed: decides which image goes where; the same seed, the same parts.

    Returns:
        for each part the numbers of its images, ascending; together every image once.
    """
    parts: list[list[int]] = [[] for _ in shares]
    for number, indices in enumerate(_members(labels)):
        shuffled = generator(seed, "split", number).permutation(indices)
        ends = np.cumsum(_counts(len(indices), np.asarray(shares, np.float64)))
        for part, chunk in zip(parts, np.split(shuffled, ends[:-1]), strict=True):
            part.extend(chunk.tolist())
    return [sorted(part) for part in parts]


def _members(labels: Sequence[Hashable]) -> list[list[int]]:
    """The numbers of the images of each class, in the order in which the classes first occur."""
    members: defaultdict[Hashable, list[int]] = defaultdict(list)
    for index, label in enumerate(labels):
        members[label].append(index)
    return list(members.values())


def _counts(images: int, shares: NDArray[np.float64]) -> NDArray[np.int64]:
    """How many images each part gets: by largest remainder, then at least one each as far as they go."""
    ideal = images * shares / shares.sum()
    counts = np.floor(ideal).astype(np.int64)
    by_remainder = np.argsort(counts - ideal, kind="stable")
    counts[by_remainder[: images - counts.sum()]] += 1
    for part in np.argsort(-shares, kind="stable"):
        if counts[part] == 0 and counts.max() > 1:
            counts[counts.argmax()] -= 1
            counts[part] += 1
    return counts


def complete(dataset: Dataset, seed: int) -> Dataset:
    """Make the splits that are missing out of ``train``, stratified; a note says so.

    Only train: 70 % stay in train, 10 % become validation, 20 % test. Train and test: 10 % of train become validation.
    With a validation split the data set stays as it is.

    Raises:
        DataError: a class has a single image, or there are too few images for all the splits.
    """
    if "validation" in dataset.splits:
        return dataset
    given_test = "test" in dataset.splits
    shares: dict[SplitName, float] = {"train": 90, "validation": 10}
    if not given_test:
        shares = {"train": 70, "validation": 10, "test": 20}
    source = dataset.splits["train"]
    strata = _strata(source)
    _refuse_single_images(dataset, strata)
    parts = dict(zip(shares, stratified(strata, tuple(shares.values()), seed), strict=True))
    if not all(parts.values()):
        raise DataError(
            f"{dataset.name} has {len(source)} images in train: too few for {', '.join(shares)}; add images."
        )
    made: dict[SplitName, Source] = {split: Subset(source, indices) for split, indices in parts.items()}
    splits = {**made, **dataset.splits, "train": made["train"]}
    of_what = "given training images" if given_test else "images"
    percentages = ", ".join(f"{share:g} % {split}" for split, share in shares.items())
    note = f"The {of_what} were parted by chance, class by class (seed {seed}): {percentages}."
    return replace(dataset, splits=splits, notes=(*dataset.notes, note))


def keep_share(dataset: Dataset, share: float, seed: int) -> Dataset:
    """The data set with a share of its training images, of every class the same, each so much more often.

    An epoch stays as long as it was, so that training on a smaller share differs in nothing else. For one seed a
    smaller share lies within each larger one. Every class keeps at least one image; a note says how many there are.
    """
    if share == 1:
        return dataset
    source = dataset.splits["train"]
    kept: list[tuple[float, int]] = []
    for number, indices in enumerate(_members(_strata(source))):
        some = max(1, round(share * len(indices)))
        chosen = generator(seed, "share", number).permutation(indices)[:some].tolist()
        kept += [((place + 0.5) / some, index) for place, index in enumerate(chosen)]
    spread = [index for _, index in sorted(kept)]  # so that those that come once more than others are of every class
    often = Subset(source, np.resize(spread, len(source)).tolist())
    note = (
        f"Of {len(source):,} training images a share of {share:g} is used, {len(kept):,}, each about "
        f"{len(source) / len(kept):.3g} times in an epoch."
    )
    return replace(dataset, splits={**dataset.splits, "train": often}, notes=(*dataset.notes, note))


def _strata(source: Source) -> list[Hashable]:
    """What to stratify by: the class; with many labels the rarest of an image's classes."""
    labels = [source.label(index) for index in range(len(source))]
    frequency = Counter(index for label in labels if isinstance(label, Labels) for index in label.indices)
    return [_stratum(label, frequency) for label in labels]


def _stratum(label: Label | Labels | None, frequency: Counter[int]) -> Hashable:
    if isinstance(label, Labels):
        return min(label.indices, key=lambda index: (frequency[index], index), default=None)
    return label.index if label else None


def _refuse_single_images(dataset: Dataset, strata: Sequence[Hashable]) -> None:
    """With many labels a rare one may stay in train alone: its image still tests the other labels."""
    if dataset.many_labels:
        return
    for stratum, images in Counter(strata).items():
        if images == 1 and isinstance(stratum, int):
            raise DataError(
                f"{dataset.name}: the class '{dataset.classes[stratum]}' has a single image, which cannot be both "
                "learned from and tested on; add images of it or leave the class out."
            )


@runtime_checkable
class KnowsSizes(Protocol):
    """A source that knows how many bytes an image has without reading it."""

    def encoded_size(self, index: int) -> int: ...


def leaks(dataset: Dataset) -> list[tuple[str, str]]:
    """Images that are stored byte for byte the same in two splits: (name in the earlier split, name in the later).

    An image is paired with its first equal in each earlier split. Images that cannot be read are passed over.
    """
    return [pair for pairs in _leaks_by_splits(dataset).values() for pair in pairs]


def leak_notes(dataset: Dataset) -> list[str]:
    """A sentence for each two splits that share images, which names the first three."""
    notes = []
    for (earlier, later), pairs in _leaks_by_splits(dataset).items():
        names = ", ".join(name for _, name in pairs[:3]) + (", …" if len(pairs) > 3 else "")
        images = f"1 image of {later} is" if len(pairs) == 1 else f"{len(pairs)} images of {later} are"
        notes.append(f"{images} also in {earlier}: {names}")
    return notes


def _leaks_by_splits(dataset: Dataset) -> dict[tuple[SplitName, SplitName], list[tuple[str, str]]]:
    found: dict[tuple[SplitName, SplitName], list[tuple[str, str]]] = {pair: [] for pair in combinations(ORDER, 2)}
    first: dict[bytes, dict[SplitName, int]] = {}  # digest -> the first image in each split that has it
    for split, index in _suspects(dataset):
        source = dataset.splits[split]
        try:
            digest = hashlib.blake2b(source.encoded(index), digest_size=16).digest()
        except UnreadableImage:
            continue
        equals = first.setdefault(digest, {})
        for earlier, other in equals.items():
            if earlier != split:
                found[earlier, split].append((dataset.splits[earlier].name(other), source.name(index)))
        equals.setdefault(split, index)
    return {pair: leaked for pair, leaked in found.items() if leaked}


def _suspects(dataset: Dataset) -> Iterator[tuple[SplitName, int]]:
    """Images whose size in bytes occurs in another split too: no other has to be read to the end."""
    sizes = {split: _sizes(dataset.splits[split]) for split in ORDER if split in dataset.splits}
    in_splits = Counter(size for of_split in sizes.values() for size in set(of_split))
    for split, of_split in sizes.items():
        yield from ((split, index) for index, size in enumerate(of_split) if size >= 0 and in_splits[size] > 1)


def _sizes(source: Source) -> list[int]:
    """Bytes of each image as stored, -1 if it cannot be read."""
    indices: Sequence[int] = range(len(source))
    while isinstance(source, Subset):
        indices = [source.indices[index] for index in indices]
        source = source.source
    measure = source.encoded_size if isinstance(source, KnowsSizes) else partial(_length, source)
    return [_size(measure, index) for index in indices]


def _length(source: Source, index: int) -> int:
    return len(source.encoded(index))


def _size(measure: Callable[[int], int], index: int) -> int:
    try:
        return measure(index)
    except UnreadableImage:
        return -1
