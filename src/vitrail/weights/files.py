"""From a reference to the files it stands for: on this machine, or fetched from the Hugging Face Hub and verified."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from vitrail.atomic import disk_errors
from vitrail.errors import CheckpointError, DiskFull, SettingError
from vitrail.weights import tensorflow

# Where weights are in a folder or repository; the first that is there is taken.
USUAL_NAMES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
SUFFIXES = (".safetensors", ".npz", ".pth", ".pt", ".th", ".tar", ".bin", ".ckpt", tensorflow.SUFFIX)
CONFIGS = ("config.json", "hparams.json", "bert_config.json")  # of most libraries, OpenAI's GPT-2, Google's BERT
EXPORTED = {  # what `vitrail export` writes and these are not
    ".onnx": "is an exported model, which predict, evaluate and serve take; give the run it was made of",
    ".pt2": "is a program for torch.export.load, which can run code that is in it; give the run it was made of, or "
    "export that to ONNX",
}
HUB_REFERENCE = re.compile(r"(?P<repository>[\w.-]+/[\w.-]+?)(?:@(?P<revision>[^/@]+))?(?:/(?P<file>.+))?")
SHA256 = re.compile(r"[0-9a-f]{64}")
COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Files:
    """A checkpoint's files on this machine.

    Attributes:
        name: what a person calls it; begins every message about it.
        weights: the files with the tensors.
        config: the repository's ``config.json``, or what its authors' own program calls it; empty without one.
        preprocessor: its ``preprocessor_config.json``; empty without one.
    """

    name: str
    weights: tuple[Path, ...]
    config: dict[str, Any]
    preprocessor: dict[str, Any]


class HubReference(NamedTuple):
    """``hf:ORG/NAME[@REVISION][/FILE]`` in parts."""

    repository: str
    revision: str | None
    file: str | None


def find(reference: str | Path) -> Files:
    """The files of ``hf:ORG/NAME[@REVISION][/FILE]``, ``timm:NAME``, a folder or a file.

    Raises :class:`CheckpointError` for what is missing, damaged or not to be had, :class:`DiskFull` when the cache's
    disk is full.
    """
    hub = hub_reference(str(reference))
    return from_hub(str(reference), hub) if hub else from_disk(Path(reference).expanduser())


def hub_reference(reference: str) -> HubReference | None:
    """The parts of a reference to the Hub; None for any other. Raises :class:`SettingError` for half of one."""
    where, _, name = reference.partition(":")
    if where not in ("hf", "timm"):
        return None
    match = HUB_REFERENCE.fullmatch(f"timm/{name}" if where == "timm" else name)
    if match is None:
        raise SettingError(
            f"'{reference}' names no repository; write hf:ORG/NAME, such as hf:google/vit-base-patch16-224, "
            "or timm:NAME, such as timm:vit_small_patch16_224.augreg_in21k."
        )
    return HubReference(**match.groupdict())


def from_disk(path: Path) -> Files:
    """The files of a folder with usual names, or one file with what lies beside it."""
    path = tensorflow.index_of(path)
    if path.suffix in EXPORTED:
        raise CheckpointError(f"{path} {EXPORTED[path.suffix]}.")
    if not path.exists():
        raise CheckpointError(f"there is no {path}; give a run's folder, a file of weights, hf:ORG/NAME or timm:NAME.")
    folder = path if path.is_dir() else path.parent
    main = _main_file(path) if path.is_dir() else path
    return Files(
        str(path),
        tuple(folder / shard for shard in _shards(main)) or (main,),
        next((config for name in CONFIGS if (config := _read_config(folder / name))), {}),
        _read_json(folder / "preprocessor_config.json"),
    )


def from_hub(name: str, reference: HubReference) -> Files:
    """The files of a repository, all of the same commit, from the Hub's cache or downloaded into it."""
    repository, revision, file = reference
    folder = file.rpartition("/")[0] if file else ""
    beside = f"{folder}/" if folder else ""
    config = fetch(repository, f"{beside}config.json", revision)
    if config is not None:  # in the cache, its folder is called as its commit is
        revision = config.parents[beside.count("/")].name
    preprocessor = fetch(repository, f"{beside}preprocessor_config.json", revision)
    for candidate in (file, f"{file}{tensorflow.SUFFIX}") if file else USUAL_NAMES:
        main = fetch(repository, candidate, revision)
        if main is not None:
            break
    else:
        missing = f"no {file}" if file else f"none of {', '.join(USUAL_NAMES)}"
        raise CheckpointError(f"{name}: the repository has {missing}; name its file of weights: hf:ORG/NAME/FILE.")
    weights = [fetch(repository, beside + shard, revision) for shard in _shards(main)] or [main]
    data = tensorflow.data_files(main) if main.suffix == tensorflow.SUFFIX else []
    if None in (*weights, *(fetch(repository, beside + part.name, revision) for part in data)):
        raise CheckpointError(f"{name}: a part that {main.name} names is not in the repository.")
    return Files(
        name,
        tuple(path for path in weights if path is not None),
        _read_config(config) if config else {},
        _read_json(preprocessor) if preprocessor else {},
    )


def fetch(repository: str, file: str, revision: str | None = None) -> Path | None:
    """One file of a repository on the Hub, in the Hub's own cache; None if the repository does not have it.

    A download that breaks off is resumed, and what was downloaded is compared with the hash that the Hub states.
    Raises :class:`CheckpointError` with one sentence for a repository that is absent or gated, a network that is not
    there or a wrong hash (the file is then taken out of the cache), and :class:`DiskFull`.
    """
    from huggingface_hub import _CACHED_NO_EXIST, constants, errors, hf_hub_download, try_to_load_from_cache

    where = f"hf:{repository}" + (f"@{revision}" if revision else "")
    cached: Any = None
    try:
        cached = try_to_load_from_cache(repository, file, revision=revision)
        if cached is _CACHED_NO_EXIST and COMMIT.fullmatch(revision or ""):
            return None
        if not isinstance(cached, str):
            _knock(repository, file, revision)
        with disk_errors(Path(constants.HF_HUB_CACHE)):
            path = Path(hf_hub_download(repository, file, revision=revision))
    except errors.GatedRepoError as error:
        raise CheckpointError(
            f"{where} is gated: accept its terms on the Hugging Face Hub, then log in with `hf auth login`."
        ) from error
    except errors.RepositoryNotFoundError as error:
        tag = " (timm's have a tag, as in vit_small_patch16_224.augreg_in21k)" if _lacks_tag(repository) else ""
        raise CheckpointError(
            f"{where} is not on the Hugging Face Hub, or is private; check its name{tag}, or log in with "
            "`hf auth login`."
        ) from error
    except errors.RevisionNotFoundError as error:
        raise CheckpointError(f"{where}: there is no such revision; leave it out, or correct it.") from error
    except errors.LocalEntryNotFoundError as error:  # no network, or none is wanted
        if cached is _CACHED_NO_EXIST:
            return None
        raise NoNetwork(where, _in_brief(error.__cause__ or error)) from error
    except errors.EntryNotFoundError:
        return None
    except DiskFull:
        raise
    except Exception as error:  # whatever the HTTP library below the Hub's client raises; it differs with its version
        raise CheckpointError(f"{where}: {file} could not be downloaded ({_in_brief(error)}); try again.") from error
    if cached is None or path.resolve() != Path(cached).resolve():
        verify(path, where)
    return path


def _knock(repository: str, file: str, revision: str | None) -> None:
    """Ask the Hub for a file once; `hf_hub_download` tries for half a minute where there is no network at all.

    Raises what that raises then; what else the Hub answers is for that to handle.
    """
    from huggingface_hub import errors, get_hf_file_metadata, hf_hub_url

    try:
        get_hf_file_metadata(hf_hub_url(repository, file, revision=revision))
    except errors.HfHubHTTPError:
        return
    except Exception as error:
        raise errors.LocalEntryNotFoundError(str(error)) from error


class NoNetwork(CheckpointError):
    """The Hub cannot be reached and the cache does not have what is wanted."""

    def __init__(self, where: str, why: str) -> None:
        super().__init__(
            f"{where} is not in the cache and the Hugging Face Hub cannot be reached ({why}); try again with a network."
        )


def _lacks_tag(repository: str) -> bool:
    return repository.startswith("timm/") and "." not in repository


def _in_brief(error: BaseException) -> str:
    """An error's first line; its kind if it has no words."""
    return str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__


def verify(path: Path, where: str) -> None:
    """Compare a downloaded file with its SHA-256, which the Hub's cache uses as the name of large files.

    Where the system has no symbolic links, it does not, and nothing is compared. Raises :class:`CheckpointError` if
    they differ, and removes the file from the cache.
    """
    blob = path.resolve()
    if not SHA256.fullmatch(blob.name):
        return
    digest = hashlib.sha256()
    with blob.open("rb") as file:
        while chunk := file.read(1 << 22):
            digest.update(chunk)
    if digest.hexdigest() != blob.name:
        blob.unlink()
        path.unlink(missing_ok=True)
        raise CheckpointError(
            f"{where}: {path.name} arrived with the hash {digest.hexdigest()[:12]}…, not {blob.name[:12]}…, and was "
            "removed from the cache; try again."
        )


def has_weights(folder: Path) -> bool:
    """Whether a folder has a file of weights beside a ``config.json``, or one alone."""
    return any(path.suffix in SUFFIXES or path.name in USUAL_NAMES for path in folder.iterdir())


def _main_file(folder: Path) -> Path:
    """The file of weights in a folder: one of a usual name, or the only one that could be it."""
    for name in USUAL_NAMES:
        if (folder / name).is_file():
            return folder / name
    others = sorted(path for path in folder.iterdir() if path.suffix in SUFFIXES)
    if len(others) == 1:
        return others[0]
    if (index := tensorflow.latest(folder)) is not None:
        return index
    found = f"several: {', '.join(path.name for path in others)}" if others else "none"
    raise CheckpointError(f"{folder} should hold one file of weights and has {found}; name the file.")


def _shards(main: Path) -> list[str]:
    """The names of the files that an index lists, each once; none if it is no index."""
    if not main.name.endswith(".index.json"):
        return []
    index = _read_json(main).get("weight_map")
    if not isinstance(index, dict) or not all(isinstance(name, str) for name in index.values()):
        raise CheckpointError(f"{main} is no index of weights: it has no weight_map; fetch it again.")
    names = sorted(set(index.values()))
    if outside := [name for name in names if Path(name).name != name]:
        raise CheckpointError(f"{main} names the file {outside[0]}, which is not beside it; fetch it again.")
    return names


def _read_config(path: Path) -> dict[str, Any]:
    """A ``config.json``; of timm's oldest, too, where the settings of ``pretrained_cfg`` stand beside the rest."""
    config = _read_json(path)
    if "architecture" in config and "pretrained_cfg" not in config:
        return {**config, "pretrained_cfg": config}
    return config


def _read_json(path: Path) -> dict[str, Any]:
    """A JSON object; empty if there is no such file."""
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged ({error}); fetch it again.") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} is damaged: it holds no JSON object; fetch it again.")
    return value
