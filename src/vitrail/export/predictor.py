"""An exported model that answers as the task did which it was made of."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vitrail.data.preprocess import Preprocess
from vitrail.errors import CheckpointError, SettingError, UserError
from vitrail.tasks.classifier import Classifier
from vitrail.weights.save import FORMAT

KEY = "vitrail"  # of a file's metadata, where the description is
IMAGES, LOGITS = "images", "logits"  # what the one input and the one output are called


class Exported(Classifier):
    """A classifier whose logits a function computes, and which has no parameters of its own.

    Args:
        description: what `describe` wrote into the file.
        run: images ``(B, C, H, W)`` uint8 to logits ``(B, K)`` float32, on the device of the images.

    Raises :class:`CheckpointError` for a description that says too little.
    """

    def __init__(self, description: Mapping[str, Any], run: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        try:
            self.model = str(description["model"])
            self.classes = tuple(str(name) for name in description["classes"])
            self.many_labels = bool(description["many_labels"])
            self.temperature = float(description["temperature"])
            self.preprocess = Preprocess.from_json(description["preprocess"])
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise CheckpointError(f"its description is damaged ({error!r}); export the run again.") from error
        self.score = "map" if self.many_labels else "top1"
        self._run = run

    def forward(self, images: Tensor) -> Tensor:
        """Images ``(B, C, H, W)`` uint8 as the model sees them, to logits ``(B, K)``.

        Raises :class:`SettingError` for images of another type or size.
        """
        wanted = (self.preprocess.channels, *self.preprocess.size)
        if images.dtype != torch.uint8 or tuple(images.shape[1:]) != wanted:
            given = f"{tuple(images.shape[1:])} of {images.dtype}"
            raise SettingError(f"this model reads images {wanted} of torch.uint8, channels first, not {given}.")
        return self._run(images)


class Session:
    """An ONNX file in onnxruntime, on the device where the images are if onnxruntime can compute there.

    Args:
        path: the file.

    Attributes:
        one_by_one: whether each image is computed for itself. A dynamically quantised model scales its activations by
            the largest of the whole batch, so that without this an answer would depend on the other images.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.one_by_one = False
        self.sessions = {"cpu": open_session(path, "cpu")}

    def __call__(self, images: Tensor) -> Tensor:
        parts = images.split(1) if self.one_by_one else (images,)
        session = self.on(images.device.type)
        logits = [session.run([LOGITS], {IMAGES: np.ascontiguousarray(part.cpu().numpy())})[0] for part in parts]
        return torch.from_numpy(np.concatenate(logits)).to(images.device)

    def on(self, device: str) -> Any:
        """The session of a kind of device, opened when it is first wanted."""
        if device not in self.sessions:
            self.sessions[device] = open_session(self.path, device)
        return self.sessions[device]


def open_onnx(path: Path) -> Exported:
    """The classifier in an ONNX file that `vitrail.export.onnx` wrote.

    Raises :class:`CheckpointError` for a file that is missing, damaged, of a newer version, or not of Vitrail.
    """
    session = Session(path)
    opened = session.on("cpu")
    description = read_description(path, opened.get_modelmeta().custom_metadata_map)
    session.one_by_one = bool(description.get("int8"))
    try:
        exported = Exported(description, session)
    except UserError as error:
        raise CheckpointError(f"{path}: {error}") from error
    preprocess, given = exported.preprocess, [*opened.get_inputs(), *opened.get_outputs()]
    wanted = [
        (IMAGES, "tensor(uint8)", [preprocess.channels, *preprocess.size]),
        (LOGITS, "tensor(float)", [len(exported.classes)]),
    ]
    if [(each.name, each.type, each.shape[1:]) for each in given] != wanted:
        raise CheckpointError(f"{path} reads and gives something else than its description says; export the run again.")
    return exported


def read_description(path: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    """What a file says of itself. Raises :class:`CheckpointError` if that is nothing, or of a newer version."""
    if KEY not in metadata:
        raise CheckpointError(
            f"{path} was not exported by Vitrail: it has no metadata '{KEY}', which hold classes and preprocessing; "
            "export a run with `vitrail export RUN --to onnx`."
        )
    try:
        description = json.loads(metadata[KEY])
        version = int(description["format"])
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise CheckpointError(f"the metadata '{KEY}' of {path} are damaged; export the run again.") from error
    if version > FORMAT:
        raise CheckpointError(
            f"{path} was written by a newer Vitrail ({description.get('vitrail')}); update with "
            "`pip install --upgrade vitrail`."
        )
    return dict(description)


def open_session(path: Path, device: str) -> Any:
    """An `onnxruntime.InferenceSession` with as many threads as PyTorch has.

    Raises :class:`CheckpointError` for what onnxruntime cannot open.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise SettingError(f"{path} is run by onnxruntime: pip install 'vitrail[export]'.") from error
    if not path.is_file():
        raise CheckpointError(f"there is no file {path}; write one with `vitrail export RUN --to onnx`.")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # as PyTorch's, threads that wait sleep
    try:
        return onnxruntime.InferenceSession(path, options, providers=providers(device))
    except Exception as error:  # its kinds have no common base but this one
        reason = re.sub(r"^\[[\w :-]+\]\s*:?\s*(\d+\s*:\s*\w+\s*:\s*)?", "", str(error).strip().partition("\n")[0])
        raise CheckpointError(
            f"{path} is damaged, cut short or no ONNX file ({reason.rstrip('.')}); export the run again."
        ) from error


def providers(device: str) -> list[str]:
    """What of onnxruntime computes for a kind of device, the preferred first."""
    import onnxruntime

    with_cuda = device == "cuda" and "CUDAExecutionProvider" in onnxruntime.get_available_providers()
    return ["CUDAExecutionProvider", "CPUExecutionProvider"] if with_cuda else ["CPUExecutionProvider"]
