"""From a file of weights to named tensors. No file can make this run code: nothing in it is unpickled but tensors."""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from vitrail.errors import CheckpointError
from vitrail.weights import tensorflow

# Under which name training programs put the weights beside their optimizer, the averaged ones before the others.
WRAPPERS = ("state_dict_ema", "model_ema", "ema_state_dict", "state_dict", "model", "net", "teacher")

# What wrapping modules and saving programs put before every name. The images' tower of a model of images and texts has
# its name; what belongs to the texts is left out.
PREFIXES = ("module.", "_orig_mod.", "opt/target/", "params/", "img/")
TEXTS = ("params/txt/", "txt/")  # names that begin so belong to the other tower

# What authors' own files hold beside the weights: settings, and NumPy's numbers, such as the best accuracy so far.
UNNEEDED = (
    "argparse.Namespace",
    "pathlib.PosixPath",
    "numpy.dtype",
    "numpy.ndarray",
    *(f"numpy.dtypes.{kind}DType" for kind in ("Float64", "Float32", "Int64")),
    *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("scalar", "_reconstruct")),
)
NAMED_IN_PICKLE = re.compile(r"GLOBAL ([\w.]*\w)")  # in an error of PyTorch's unpickler


def read_tensors(paths: Sequence[Path]) -> dict[str, Tensor]:
    """All tensors of the files on the CPU, without the wrappers and prefixes that training programs add.

    Raises :class:`CheckpointError` for a file that is damaged, that holds no tensors, or that would run code.
    """
    tensors: dict[str, Tensor] = {}
    for path in paths:
        tensors |= unwrapped(read_file(path), path)
    return without_prefixes(tensors)


def read_file(path: Path) -> Mapping[str, Any]:
    """What one file holds, by the format that its name says.

    That is safetensors, NumPy's ``.npz``, TensorFlow's ``.index`` with the data beside it, else `torch.save`'s.
    """
    if not path.is_file():
        raise CheckpointError(f"there is no file {path}; the checkpoint is incomplete.")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        if path.suffix == tensorflow.SUFFIX:
            return tensorflow.read_checkpoint(path)
        return _read_npz(path) if path.suffix == ".npz" else _read_pickled(path)
    except CheckpointError:
        raise
    except Exception as error:  # for damaged bytes the readers raise nearly anything
        reason = re.split(r"\. |\n", str(error).strip())[0].rstrip(".")
        reason = reason if " " in reason else type(error).__name__  # a KeyError's words are its key
        raise CheckpointError(
            f"{path} is damaged, cut short or no file of weights ({reason}); fetch it again."
        ) from error


def unwrapped(content: Any, path: Path) -> dict[str, Tensor]:
    """The tensors, from inside however many of the dictionaries that training programs put around them."""
    content = content if isinstance(content, Mapping) else {}
    for _ in WRAPPERS:  # each at most once, for a dictionary may hold itself
        inside = [content[name] for name in WRAPPERS if isinstance(content.get(name), Mapping) and content[name]]
        content = inside[0] if inside else content
    tensors = {str(name): value.detach() for name, value in content.items() if isinstance(value, Tensor)}
    if tensors:
        return tensors
    raise CheckpointError(f"{path} holds no named tensors; save a model's state_dict().")


def without_prefixes(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors, without a prefix that all of them share."""
    tensors = {name: value for name, value in tensors.items() if not name.startswith(TEXTS)}
    while tensors and (prefix := next((each for each in PREFIXES if all(n.startswith(each) for n in tensors)), None)):
        tensors = {name.removeprefix(prefix): value for name, value in tensors.items()}
    return tensors


def _read_npz(path: Path) -> dict[str, Tensor]:
    """The numbers in an archive of NumPy's; what else is in it, such as texts, is left out."""
    with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        try:
            found = {name: _readable(arrays[name]) for name in arrays.files}
        except ValueError as error:
            if "allow_pickle" not in str(error):
                raise
            raise _would_run_code(path, "pickled objects") from error
    return {name: torch.from_numpy(array) for name, array in found.items() if array.dtype.kind in "biufc"}


def _readable(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """In this machine's order of bytes; bfloat16, which NumPy knows as two bytes without a meaning, as float32."""
    if array.dtype == np.dtype("V2"):
        return np.asarray(array.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _read_pickled(path: Path) -> Mapping[str, Any]:
    """A file of ``torch.save``, read by PyTorch's restricted unpickler; what is not of tensors becomes `Unneeded`."""
    try:
        with torch.serialization.safe_globals([(Unneeded, name) for name in UNNEEDED]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = NAMED_IN_PICKLE.search(str(error))
        if found is None:
            raise ValueError("it is no file of torch.save") from error
        raise _would_run_code(path, found[1]) from error


class Unneeded:
    """Stands for an object beside the weights, which is neither made nor used."""

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, _: Any) -> None:
        pass


def _would_run_code(path: Path, what: str) -> CheckpointError:
    return CheckpointError(
        f"{path} would run code when opened: it holds {what} beside tensors; in a place you trust, save its "
        "state_dict() as safetensors."
    )
