"""The one doorway to data: what a person types becomes a data set with its splits, checked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from vitrail.data import folder, idx, parquet, shards, table
from vitrail.data.sample import Image, Label, Labels
from vitrail.data.source import Dataset, Source
from vitrail.data.split import ORDER, complete, keep_share, leak_notes
from vitrail.errors import DataError, SettingError, UnknownName, UnreadableImage

PROBED = 32  # images that are decoded to learn what the data are like


class Format(NamedTuple):
    """How to recognise what a path holds, and how to open it; of a table the columns can be named."""

    recognises: Callable[[Path], bool]
    open: Callable[..., Dataset]
    has_columns: bool = False


def _open_digits(path: Path) -> Dataset:
    from vitrail.data.digits import open_digits

    return open_digits(str(path))


def _open_shapes(path: Path) -> Dataset:
    from vitrail.data.shapes import open_shapes

    return open_shapes(str(path))


# The first that recognises a path opens it: words first, then special files, any folder of images last.
FORMATS: dict[str, Format] = {
    "digits": Format(lambda path: path == Path("digits"), _open_digits),
    "shapes": Format(lambda path: str(path).partition(":")[0] == "shapes", _open_shapes),
    "idx": Format(idx.recognises, idx.open_idx),
    "shards": Format(shards.recognises, shards.open_shards),
    "parquet": Format(parquet.recognises, parquet.open_parquet, has_columns=True),
    "csv": Format(partial(table.recognises, word="csv"), partial(table.open_table, word="csv"), has_columns=True),
    "tsv": Format(partial(table.recognises, word="tsv"), partial(table.open_table, word="tsv"), has_columns=True),
    "jsonl": Format(partial(table.recognises, word="jsonl"), partial(table.open_table, word="jsonl"), has_columns=True),
    "folder": Format(folder.recognises, folder.open_folder),
}


def open_dataset(
    data: str,
    format: str | None = None,
    *,
    seed: int = 0,
    image_column: str | None = None,
    label_column: str | None = None,
    as_given: bool = False,
    share: float = 1.0,
) -> Dataset:
    """Open a data set with every split that it can have.

    Args:
        data: a path, or ``digits``, ``shapes`` or ``shapes:N`` (N images); a folder of such a name by its full path.
        format: one of :data:`FORMATS`; by default found by looking at the path.
        seed: decides which images go into a split that is not given.
        image_column, label_column: columns of a table, where their names are unusual.
        as_given: make no splits that are not there; one class is then enough, as for measuring a trained model.
        share: how much of the training images is used, each so much more often; see `keep_share`.

    Raises:
        DataError: there is nothing usable: see each format; or one class only, or a split without images.
        UnknownName: there is no such format.
        SettingError: columns are named for data without columns, or a package is missing.
    """
    named = {"image_column": image_column, "label_column": label_column}
    columns = {name: column for name, column in named.items() if column is not None}
    dataset = replace(_open(Path(data).expanduser(), format, columns), name=data)
    _check(dataset, fewest_classes=1 if as_given else 2)
    if not as_given:
        dataset = keep_share(complete(dataset, seed), share, seed)
    splits = {split: dataset.splits[split] for split in ORDER if split in dataset.splits}
    return replace(dataset, splits=splits, channels=channels_of(next(iter(splits.values()))))


def summary(dataset: Dataset) -> dict[str, Any]:
    """What ``vitrail info DATA`` tells, ready for JSON; reads every image that could be in two splits.

    Keys: ``data``, ``format``, ``many_labels``, ``channels``; ``images`` (split -> count); ``classes`` (class -> split
    -> count); ``pixels`` (smallest, median and largest width and height of some images of train); ``unreadable`` (names
    of those among them that cannot be read); ``notes``; ``leaks`` (sentences).
    """
    images, unreadable = _some_images(dataset.splits["train"])
    counts = {split: class_counts(source) for split, source in dataset.splits.items()}
    return {
        "data": dataset.name,
        "format": dataset.format,
        "many_labels": dataset.many_labels,
        "channels": dataset.channels,
        "images": {split: len(source) for split, source in dataset.splits.items()},
        "classes": {
            name: {split: of_split[number] for split, of_split in counts.items()}
            for number, name in enumerate(dataset.classes)
        },
        "pixels": {
            "width": _spread([image.shape[1] for image in images]),
            "height": _spread([image.shape[0] for image in images]),
        },
        "unreadable": unreadable,
        "notes": list(dataset.notes),
        "leaks": leak_notes(dataset),
    }


def class_counts(source: Source) -> Counter[int]:
    """How many images have each class, by the class's number."""
    labels = (source.label(index) for index in range(len(source)))
    return Counter(number for label in labels for number in _numbers(label))


def _open(path: Path, format: str | None, columns: Mapping[str, str]) -> Dataset:
    word = format or _recognise(path)
    if word not in FORMATS:
        raise UnknownName("format", word, FORMATS)
    if columns and not FORMATS[word].has_columns:
        raise SettingError(f"--image-column and --label-column are for tables, but {path} is read as '{word}'.")
    return FORMATS[word].open(path, **columns)


def _recognise(path: Path) -> str:
    """The format of what lies at ``path``, or of what the word means."""
    try:
        for word, format in FORMATS.items():
            if format.recognises(path):
                return word
        found = _describe(path)
    except OSError as error:
        raise DataError(f"cannot look into {path}: {(error.strerror or '').lower()}.") from error
    raise DataError(f"{path} {found}; DATA must be one of: {', '.join(FORMATS)} (--format says which).")


def _describe(path: Path) -> str:
    if not path.exists():
        return "does not exist"
    if not path.is_dir():
        return f"is a '{path.suffix}' file" if path.suffix else "is a file without an ending"
    endings = Counter(file.suffix or "without an ending" for file in path.iterdir())
    if not endings:
        return "is an empty folder"
    return f"is a folder with {', '.join(f'{count} {ending}' for ending, count in endings.most_common(5))}"


def _check(dataset: Dataset, fewest_classes: int) -> None:
    if len(dataset.classes) < fewest_classes:
        only = f"only the class '{dataset.classes[0]}'" if dataset.classes else "no classes"
        raise DataError(f"{dataset.name} has {only}; at least two are needed to tell apart.")
    for split, source in dataset.splits.items():
        if not len(source):
            raise DataError(f"{dataset.name} has no images in {split}; add some or remove the split.")


def channels_of(source: Source) -> Literal[1, 3]:
    """1 if those images that were looked at are all grey, else 3."""
    images, _ = _some_images(source)
    return 1 if images and all(image.shape[2] == 1 for image in images) else 3


def _some_images(source: Source) -> tuple[list[Image], list[str]]:
    """Up to 32 images, evenly spread over the source, and the names of those that cannot be read."""
    indices = np.linspace(0, len(source) - 1, min(PROBED, len(source)), dtype=int).tolist()
    images = {index: _image(source, index) for index in indices}
    readable = [image for image in images.values() if image is not None]
    return readable, [source.name(index) for index, image in images.items() if image is None]


def _image(source: Source, index: int) -> Image | None:
    try:
        return source.sample(index).image
    except UnreadableImage:
        return None


def _numbers(label: Label | Labels | None) -> tuple[int, ...]:
    if label is None:
        return ()
    return (label.index,) if isinstance(label, Label) else label.indices


def _spread(lengths: Sequence[int]) -> dict[str, float] | None:
    if not lengths:
        return None
    return {"smallest": min(lengths), "median": float(np.median(lengths)), "largest": max(lengths)}
