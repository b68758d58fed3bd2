"""Where samples come from: a numbered collection of images, and the data set that its splits make."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from vitrail.data import picture, read
from vitrail.data.picture import Picture
from vitrail.data.preprocess import Preprocess
from vitrail.data.sample import Label, Labels, Sample


class Source(ABC):
    """Images that are read by their number, 0 to ``len(source) - 1``.

    A source is immutable, cheap to pickle (it travels to worker processes) and opens files only when it reads.
    """

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def name(self, index: int) -> str:
        """What a person calls this image: its path, or ``file#row``."""

    @abstractmethod
    def label(self, index: int) -> Label | Labels | None:
        """The label, without reading any pixel."""

    @abstractmethod
    def encoded(self, index: int) -> bytes:
        """The image as it is stored, to be compared byte for byte with others."""

    @abstractmethod
    def sample(self, index: int) -> Sample:
        """The decoded image with its targets. Raises :class:`vitrail.errors.UnreadableImage`."""

    def picture(self, index: int) -> Picture:
        """The same, decoded only as far as it is looked at. Raises :class:`vitrail.errors.UnreadableImage`."""
        return picture.Decoded(self.sample(index))

    def targets(self, index: int) -> Sample:
        """The same without the image, which is empty."""
        return replace(self.sample(index), image=picture.NOTHING)

    def view(self, index: int, preprocess: Preprocess) -> Sample:
        """The sample as a model sees it. Raises :class:`vitrail.errors.UnreadableImage`."""
        return preprocess.apply(self.sample(index))[0]

    def stamp(self, index: int) -> str | None:
        """What changes when the stored image does, without reading it; None where nothing is worth a cache.

        Raises OSError if it is not there.
        """
        return None


class EncodedImages(Source):
    """A source whose images are stored as JPEG, PNG …: `name`, `label` and `encoded` say all of it."""

    def sample(self, index: int) -> Sample:
        name = self.name(index)
        return Sample(read.decode(self.encoded(index), name), name, self.label(index))

    def picture(self, index: int) -> Picture:
        return picture.of_bytes(self.encoded(index), self.targets(index))

    def targets(self, index: int) -> Sample:
        return Sample(picture.NOTHING, self.name(index), self.label(index))


def stamp_of(file: str) -> str:
    """Size and time of last change of a file; raises OSError if it is not there."""
    status = os.stat(file)  # noqa: PTH116 - several times faster than Path, and called for every image
    return f"{status.st_size}-{status.st_mtime_ns}"


@dataclass(frozen=True)
class Subset(Source):
    """Some images of another source, in a given order."""

    source: Source
    indices: Sequence[int]

    def __len__(self) -> int:
        return len(self.indices)

    def name(self, index: int) -> str:
        return self.source.name(self.indices[index])

    def label(self, index: int) -> Label | Labels | None:
        return self.source.label(self.indices[index])

    def encoded(self, index: int) -> bytes:
        return self.source.encoded(self.indices[index])

    def sample(self, index: int) -> Sample:
        return self.source.sample(self.indices[index])

    def picture(self, index: int) -> Picture:
        return self.source.picture(self.indices[index])

    def targets(self, index: int) -> Sample:
        return self.source.targets(self.indices[index])

    def view(self, index: int, preprocess: Preprocess) -> Sample:
        return self.source.view(self.indices[index], preprocess)

    def stamp(self, index: int) -> str | None:
        return self.source.stamp(self.indices[index])


@dataclass(frozen=True)
class Relabelled(Source):
    """Another source whose class i is called ``indices[i]`` here."""

    source: Source
    indices: Sequence[int]

    def __len__(self) -> int:
        return len(self.source)

    def name(self, index: int) -> str:
        return self.source.name(index)

    def label(self, index: int) -> Label | Labels | None:
        return self._renamed(self.source.label(index))

    def encoded(self, index: int) -> bytes:
        return self.source.encoded(index)

    def sample(self, index: int) -> Sample:
        return self._relabelled(self.source.sample(index))

    def picture(self, index: int) -> Picture:
        found = self.source.picture(index)
        found.sample = self._relabelled(found.sample)
        return found

    def targets(self, index: int) -> Sample:
        return self._relabelled(self.source.targets(index))

    def view(self, index: int, preprocess: Preprocess) -> Sample:
        return self._relabelled(self.source.view(index, preprocess))

    def stamp(self, index: int) -> str | None:
        return self.source.stamp(index)

    def _relabelled(self, sample: Sample) -> Sample:
        return replace(sample, label=self._renamed(sample.label))

    def _renamed(self, label: Label | Labels | None) -> Label | Labels | None:
        if isinstance(label, Label):
            return Label(self.indices[label.index])
        if isinstance(label, Labels):
            return Labels(tuple(sorted(self.indices[k] for k in label.indices)))
        return None


SplitName = Literal["train", "validation", "test"]


@dataclass(frozen=True)
class Dataset:
    """A data set: its class names in the order of their indices, and a source for each split.

    Attributes:
        name: what a person typed to get it.
        format: the word for how it is stored (``folder``, ``csv``, ``idx`` …).
        classes: class names; their order is the order of the model's outputs.
        splits: ``train`` and, where there are such, ``validation`` and ``test``.
        many_labels: whether an image may have several labels, or none.
        channels: 1 if every image is grey, else 3.
        notes: sentences that a person should read, such as how the splits were made.
    """

    name: str
    format: str
    classes: tuple[str, ...]
    splits: Mapping[SplitName, Source]
    many_labels: bool = False
    channels: Literal[1, 3] = 3
    notes: tuple[str, ...] = ()
