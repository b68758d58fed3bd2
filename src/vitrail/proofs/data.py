"""Where proofs find real data: in a folder that a person names, else on the Hugging Face Hub."""

from __future__ import annotations

import hashlib
import os
import shutil
import tarfile
import tempfile
import zlib
from pathlib import Path

from vitrail.atomic import disk_errors
from vitrail.console import say
from vitrail.errors import DataError, SettingError

# Texts, and where they were published.
TEXTS = {
    "tinyshakespeare": "https://github.com/karpathy/char-rnn/tree/master/data/tinyshakespeare",
    "wikitext-2": "https://huggingface.co/datasets/Salesforce/wikitext",
    "rt-polarity": "https://www.cs.cornell.edu/people/pabo/movie-review-data",
    "ag_news_test": "https://huggingface.co/datasets/fancyzhx/ag_news",
}


class Unavailable(SettingError):
    """Data that are not on this machine and cannot be fetched; the proof has to be skipped."""


def mnist(data: Path | None) -> Path:
    """MNIST (LeCun et al. 1998): 60,000 and 10,000 grey digits of 28 x 28 pixels.

    ``data`` (by default ``$VITRAIL_DATA``) may hold ``mnist/``, a folder with the four IDX files.
    Raises :class:`Unavailable` where it does not, and the Hub cannot be reached.
    """
    return find("mnist", data, "ylecun/mnist", "mnist")


def cifar10(data: Path | None) -> Path:
    """CIFAR-10 (Krizhevsky 2009): ten classes of colour photographs of 32 x 32 pixels.

    ``data`` (by default ``$VITRAIL_DATA``) may hold ``cifar10_jpg/`` with folders ``train`` and ``test``, in each a
    folder of JPEG files a class; or the same packed as ``cifar10_jpg.tgz``. The Hub has 50,000 and 10,000 images.
    Raises :class:`Unavailable` where it does not, and the Hub cannot be reached.
    """
    return find("cifar10_jpg", data, "uoft-cs/cifar10", "plain_text")


def text(name: str, data: Path | None) -> Path:
    """A folder of text: one of `TEXTS`, in ``text/NAME`` of ``data`` (by default ``$VITRAIL_DATA``).

    Raises :class:`Unavailable` where it is not there.
    """
    root = data or os.environ.get("VITRAIL_DATA")
    if root and Path(root, "text", name).is_dir():
        return Path(root, "text", name)
    raise Unavailable(
        f"text/{name} is not in {root or 'any data folder'} and cannot be fetched by itself; it is at {TEXTS[name]}: "
        "name the folder that holds text with --data DIR."
    )


def find(name: str, data: Path | None, repository: str, part: str) -> Path:
    """``name`` or ``name.tgz`` (unpacked) in the data folder, else the folder ``part`` of a data set on the Hub."""
    root = data or os.environ.get("VITRAIL_DATA")
    if root and Path(root, name).is_dir():
        return Path(root, name)
    if root and Path(root, f"{name}.tgz").is_file():
        return unpacked(Path(root, f"{name}.tgz"))
    try:
        return from_hub(repository, part)
    except Exception as error:  # whatever the HTTP library below the Hub's client raises; it differs with its version
        raise Unavailable(
            f"{name} is not in {root or 'any data folder'}, and {repository} cannot be fetched from the Hugging Face "
            f"Hub ({type(error).__name__}); name the folder that holds {name} with --data DIR."
        ) from error


def unpacked(archive: Path) -> Path:
    """The folder in the cache that holds what is in the archive, unpacked when it is first asked for.

    The cache is ``$VITRAIL_CACHE`` or ``~/.cache/vitrail``; an archive of other content has another folder there.
    Raises :class:`DataError` for an archive that is damaged or would write elsewhere.
    """
    cache = Path(os.environ.get("VITRAIL_CACHE") or Path.home() / ".cache" / "vitrail")
    digest = hashlib.blake2b(archive.read_bytes(), digest_size=4).hexdigest()
    folder = cache / f"{archive.stem}-{digest}"
    try:
        with disk_errors(folder):
            if not folder.is_dir():
                unpack(archive, folder)
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise DataError(
            f"cannot unpack {archive} into {cache}: {error}; fetch it again, or unpack it there."
        ) from error
    return folder


def unpack(archive: Path, folder: Path) -> None:
    """Under a temporary name first, so that ``folder`` is whole or not there, even if two processes unpack at once."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        with tarfile.open(archive) as tar:
            tar.extractall(temporary, filter="data")  # refuses devices, and paths and links that lead elsewhere
        temporary.rename(folder)
    except OSError:
        if not folder.is_dir():  # else another process was faster
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def from_hub(repository: str, part: str) -> Path:
    """A folder of Parquet files of a data set on the Hub, downloaded once into the Hub's own cache."""
    from huggingface_hub import snapshot_download

    say(f"looking for {repository} on the Hugging Face Hub")
    return Path(snapshot_download(repository, repo_type="dataset", allow_patterns=f"{part}/*.parquet"), part)
