"""Texts with what is said of them: examples that a task is learned from, and the data set that their splits make."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Generic, NamedTuple, Protocol, TypeVar

from vitrail.data.source import SplitName
from vitrail.data.split import ORDER, stratified
from vitrail.errors import DataError

SHARES: dict[SplitName, float] = {"train": 0.8, "validation": 0.1, "test": 0.1}  # of data that come in one part
BESIDE_TEST: dict[SplitName, float] = {"train": 0.9, "validation": 0.1}  # of train, where test is given


class Example(Protocol):
    """What every example has."""

    @property
    def name(self) -> str:
        """What to call it: its file and line."""

    @property
    def texts(self) -> tuple[str, ...]:
        """What a tokenizer is learned from."""

    @property
    def content(self) -> Hashable:
        """What must not be in two splits."""

    @property
    def stratum(self) -> Hashable:
        """What is parted evenly over the splits."""


@dataclass(frozen=True)
class LabelledText:
    """A text, perhaps with a ``second`` one, and the name of its class; None where that is not known."""

    name: str
    text: str
    label: str | None = None
    second: str | None = None

    @property
    def texts(self) -> tuple[str, ...]:
        return (self.text,) if self.second is None else (self.text, self.second)

    @property
    def content(self) -> Hashable:
        return self.texts

    @property
    def stratum(self) -> Hashable:
        return self.label


@dataclass(frozen=True)
class TaggedWords:
    """The words of a sentence, and the tag of each; None where they are not known."""

    name: str
    words: tuple[str, ...]
    tags: tuple[str, ...] | None = None

    @property
    def texts(self) -> tuple[str, ...]:
        return (" ".join(self.words),)

    @property
    def content(self) -> Hashable:
        return self.words

    @property
    def stratum(self) -> Hashable:
        return frozenset(self.tags or ()) == frozenset(("O",))  # sentences in which there is nothing to find


class Answer(NamedTuple):
    """A part of a context, and the number of its first character."""

    text: str
    start: int


@dataclass(frozen=True)
class Question:
    """A question about a text, and what people gave as the answer: none if the text does not say it.

    ``answers`` is None where they are not known.
    """

    name: str
    question: str
    context: str
    answers: tuple[Answer, ...] | None = None

    @property
    def texts(self) -> tuple[str, ...]:
        return self.question, self.context

    @property
    def content(self) -> Hashable:
        return self.context  # what was learned of a context would help with its other questions

    @property
    def stratum(self) -> Hashable:
        return None


E = TypeVar("E", bound=Example)


@dataclass(frozen=True)
class TextData(Generic[E]):
    """Examples by split.

    Attributes:
        name: what a person typed to get them.
        splits: ``train`` and, where there are such, ``validation`` and ``test``.
        classes: names of the classes or tags in the order of the model's outputs; empty where there are none, and
            for data that are only to be measured on.
        notes: sentences that a person should read, such as how the splits were made.
    """

    name: str
    splits: Mapping[SplitName, tuple[E, ...]]
    classes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def fingerprint(self) -> str:
        """A hash of every example in every split: another value means other data."""
        digest = hashlib.blake2b(repr(self.classes).encode(), digest_size=16)
        for split, examples in self.splits.items():
            digest.update(f"\n{split} {len(examples)}".encode())
            for example in examples:
                digest.update(f"\n{example}".encode())
        return digest.hexdigest()


def complete(data: TextData[E], seed: int) -> TextData[E]:
    """Make the splits that are missing out of ``train`` by chance; a note says so.

    Only train: 80 % stay, 10 % become validation, 10 % test. Train and test: 10 % of train become validation. Examples
    of equal content stay together. With a validation split the data stay as they are.

    Raises :class:`DataError` for too few examples.
    """
    if "validation" in data.splits:
        return replace(data, notes=(*data.notes, *leak_notes(data)))
    shares = SHARES if "test" not in data.splits else BESIDE_TEST
    examples = data.splits["train"]
    together: dict[Hashable, list[E]] = {}
    for example in examples:
        together.setdefault(example.content, []).append(example)
    groups = list(together.values())
    parts = stratified([group[0].stratum for group in groups], tuple(shares.values()), seed)
    if not all(parts):
        raise DataError(
            f"{data.name} has {len(examples)} examples in train: too few for {', '.join(shares)}; add some."
        )
    made = {
        split: tuple(example for number in part for example in groups[number])
        for split, part in zip(shares, parts, strict=True)
    }
    percentages = ", ".join(f"{share:.0%} {split}" for split, share in shares.items())
    note = f"The {len(examples):,} examples of train were parted by chance (seed {seed}): {percentages}."
    whole = replace(data, splits={**made, **{k: v for k, v in data.splits.items() if k != "train"}})
    return replace(whole, notes=(*data.notes, note, *leak_notes(whole)))


def leak_notes(data: TextData[E]) -> list[str]:
    """A sentence for each two splits that share examples."""
    contents = {split: {example.content for example in data.splits[split]} for split in ORDER if split in data.splits}
    notes = []
    for earlier, later in combinations(contents, 2):
        names = [example.name for example in data.splits[later] if example.content in contents[earlier]]
        if names:
            notes.append(f"Leak: {len(names):,} of {later} are also in {earlier}, such as {names[0]}.")
    return notes


def class_names(where: str, splits: Mapping[SplitName, Sequence[tuple[str, ...]]]) -> tuple[str, ...]:
    """The classes of train in their order: as numbers if all are numbers, else by name.

    Args:
        where: the data, for errors.
        splits: the class names that each example of a split has.

    Raises :class:`DataError` if there is no train split, it has one class only, or another split has one that train
    does not have.
    """
    if "train" not in splits:
        raise DataError(f"{where} has {' and '.join(splits)} but no train part; add the examples to learn from.")
    found = Counter(name for names in splits["train"] for name in names)
    numbers = all(map(_is_number, found))
    classes = sorted(found, key=lambda name: (int(name) if numbers else 0, name))
    if len(classes) < 2:
        raise DataError(f"{where} has the class '{classes[0]}' only; there must be two or more to tell apart.")
    for split, examples in splits.items():
        unknown = next((name for names in examples for name in names if name not in found), None)
        if unknown is not None:
            raise DataError(
                f"{where}: the class '{unknown}' occurs in {split} but not in train; add training examples of it or "
                "leave it out."
            )
    return tuple(classes)


def _is_number(name: str) -> bool:
    return name.isascii() and name.isdigit() and len(name) < 10
