"""Images to learn from without labels: any data set, or a folder with images anywhere in it."""

from __future__ import annotations

from pathlib import Path

from vitrail.data.dataset import channels_of, open_dataset
from vitrail.data.files import Files
from vitrail.data.read import is_image
from vitrail.data.rng import generator
from vitrail.data.source import Dataset, Source, SplitName, Subset
from vitrail.errors import DataError

HELD_BACK = 0.05  # the share of images that validates, of a folder that is not parted


def open_images(
    data: str, format: str | None = None, *, seed: int = 0, image_column: str | None = None, as_given: bool = False
) -> Dataset:
    """A data set whose labels, if it has any, are not looked at; arguments as of `open_dataset`.

    What `open_dataset` opens has the splits that it has there. Any other folder is all images in it and below it, of
    which a twentieth, chosen by ``seed``, validates. Raises what `open_dataset` raises, and :class:`DataError` for a
    folder with fewer than 4 images.
    """
    try:
        return open_dataset(data, format, seed=seed, image_column=image_column, as_given=as_given)
    except DataError:
        folder = Path(data).expanduser()
        if format is not None or not folder.is_dir():
            raise
    files = sorted(path for path in folder.rglob("*") if path.is_file() and is_image(path.name))
    files = [path for path in files if not any(part.startswith(".") for part in path.relative_to(folder).parts)]
    if len(files) < (1 if as_given else 4):
        raise DataError(f"{data} holds {len(files)} images, too few to learn from; give a folder with more.")
    source = Files(files)
    if as_given:
        return Dataset(data, "images", (), {"train": source}, channels=channels_of(source))
    order = generator(seed, "split").permutation(len(files)).tolist()
    held = max(1, round(HELD_BACK * len(files)))
    splits: dict[SplitName, Source] = {
        "train": Subset(source, sorted(order[held:])),
        "validation": Subset(source, sorted(order[:held])),
    }
    note = f"{len(files):,} images without labels, of which {held:,} validate (seed {seed})."
    return Dataset(data, "images", (), splits, channels=channels_of(source), notes=(note,))
