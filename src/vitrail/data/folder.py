"""A folder with one folder of images for each class, with or without train, validation and test folders above."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vitrail.data import read, split
from vitrail.data.sample import Label, Labels
from vitrail.data.source import Dataset, EncodedImages, SplitName, stamp_of
from vitrail.errors import DataError, UnreadableImage


@dataclass(frozen=True)
class ImageFiles(EncodedImages):
    """Image files with their labels.

    Attributes:
        root: the folder that the paths start from.
        files: a path for each image, relative to ``root`` or absolute.
        labels: a label for each image; images of one class share one object.
    """

    root: str
    files: Sequence[str]
    labels: Sequence[Label | Labels]

    def __len__(self) -> int:
        return len(self.files)

    def name(self, index: int) -> str:
        return os.path.join(self.root, self.files[index])  # noqa: PTH118 - ten times faster than Path, and called often

    def label(self, index: int) -> Label | Labels:
        return self.labels[index]

    def encoded(self, index: int) -> bytes:
        return read.read_bytes(Path(self.name(index)))

    def encoded_size(self, index: int) -> int:
        """Bytes of the file, without reading it."""
        try:
            return Path(self.name(index)).stat().st_size
        except (OSError, ValueError) as error:
            raise UnreadableImage(self.name(index), "it is not there") from error

    def stamp(self, index: int) -> str:
        return stamp_of(self.name(index))


def recognises(path: Path) -> bool:
    """Whether ``path`` is a folder with folders or images in it."""
    return path.is_dir() and any(
        not entry.name.startswith(".") and (_is_folder(entry) or read.is_image(entry.name)) for entry in _entries(path)
    )


def open_folder(path: Path) -> Dataset:
    """Read which images there are, and of which class.

    Classes are the folders' names, sorted. Images may lie in folders below a class's folder; links to folders are
    followed, but never in a circle; hidden files and files that are no images are passed over and counted in a note.

    Raises:
        DataError: there are no class folders, no images, or a class that ``train`` does not have.
    """
    folders = _subfolders(path)
    if not folders:
        raise DataError(_no_classes(path))
    parts = _split_folders(path, folders) or {"train": path}
    passed_over: Counter[str] = Counter()
    files: dict[SplitName, list[str]] = {}
    names: dict[SplitName, list[str]] = {}
    for name, folder in parts.items():
        files[name], names[name] = _images_by_class(folder, passed_over)
    if not files["train"]:
        raise DataError(f"the class folders in {parts['train']} hold no images; put images into them.")
    notes = _notes(parts, names, passed_over)
    names = {name: of_split for name, of_split in names.items() if of_split}
    classes, labels = split.number_labels(str(path), names, sorted(set(names["train"])))
    sources = {name: ImageFiles(str(parts[name]), tuple(files[name]), labels[name]) for name in names}
    return Dataset(str(path), "folder", classes, sources, notes=notes)


def _no_classes(path: Path) -> str:
    images = sum(read.is_image(entry.name) for entry in _entries(path))
    return (
        f"{path} has no class folders (images directly in it: {images}); put the images of each class into a folder "
        "named after the class, or give a table (CSV, TSV, JSON Lines) with columns for the image and its label."
    )


def _split_folders(path: Path, folders: Sequence[str]) -> dict[SplitName, Path]:
    """The folders of the splits; none if ``folders`` are classes (of which one may well be called 'train')."""
    words = [folder for folder in folders if split.split_named(folder)]
    if len(words) < len(folders) and not any(_subfolders(path / folder) for folder in words):
        return {}
    parts: dict[SplitName, Path] = {}
    for folder in words:
        name = split.split_named(folder)
        if name in parts:
            raise DataError(f"{path} has two folders for {name}: {parts[name].name} and {folder}; join them into one.")
        if name is not None:
            parts[name] = path / folder
    if words and "train" not in parts:
        raise DataError(f"{path} has {' and '.join(words)} but no train folder; add the images to train on.")
    if words and not _subfolders(parts["train"]):
        raise DataError(_no_classes(parts["train"]))
    return parts


def _images_by_class(folder: Path, passed_over: Counter[str]) -> tuple[list[str], list[str]]:
    """The path (relative to ``folder``) and the class of every image, by class, then by path."""
    files: list[str] = []
    names: list[str] = []
    for name in _subfolders(folder):
        of_class = sorted(_images_below(str(folder / name), passed_over))
        files.extend(f"{name}/{file}" for file in of_class)
        names.extend([name] * len(of_class))
    return files, names


def _images_below(folder: str, passed_over: Counter[str]) -> Iterator[str]:
    """The images below ``folder``, relative to it."""
    real = Path(folder).resolve()
    seen = {real, *real.parents}  # a link to one of these leads in a circle
    waiting = [""]
    while waiting:
        inside = waiting.pop()
        for entry in _entries(Path(folder, inside)):
            path = f"{inside}/{entry.name}" if inside else entry.name
            if entry.name.startswith("."):
                passed_over["hidden files"] += 1
            elif _is_folder(entry):
                target = Path(entry.path).resolve()
                if target not in seen:
                    seen.add(target)
                    waiting.append(path)
            elif read.is_image(entry.name):
                yield path
            else:
                passed_over["files that are no images"] += 1


def _notes(
    parts: Mapping[SplitName, Path], names: Mapping[SplitName, Sequence[str]], passed_over: Counter[str]
) -> tuple[str, ...]:
    notes = [
        f"{parts[name]} has no images in class folders and was left out."
        for name, of_split in names.items()
        if not of_split
    ]
    if empty := set(_subfolders(parts["train"])) - set(names["train"]):
        notes.append(f"Class folders without images were left out: {', '.join(sorted(empty))}.")
    if passed_over:
        notes.append(f"Passed over: {', '.join(f'{count} {what}' for what, count in sorted(passed_over.items()))}.")
    return tuple(notes)


def _subfolders(folder: Path) -> list[str]:
    return [entry.name for entry in _entries(folder) if not entry.name.startswith(".") and _is_folder(entry)]


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """What lies in a folder, by name, so that every system gives the same order."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"cannot look into the folder {folder}: {(error.strerror or '').lower()}.") from error
