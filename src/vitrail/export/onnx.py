"""A task as an ONNX file, which runs wherever onnxruntime or another runtime does, without PyTorch."""

from __future__ import annotations

import json
import logging
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from vitrail import atomic
from vitrail.errors import SettingError
from vitrail.export.predictor import IMAGES, KEY, LOGITS
from vitrail.export.program import describe, trace
from vitrail.export.quantize import quantise
from vitrail.tasks import Classification

OPSET = 18  # of ONNX's operators: the one that PyTorch's exporter writes without a conversion


def write_onnx(task: Classification, path: Path, *, int8: bool = False) -> None:
    """Write an ``.onnx`` file from ``images (batch, C, H, W)`` uint8 to ``logits (batch, K)`` float32.

    The normalisation is inside, so that nobody can get it wrong. Classes and preprocessing are in the metadata, under
    ``vitrail``, as JSON. Weights that are too large for one file, from about 1.5 GB on, are in another beside it, which
    is called as it is with ``.data`` behind. ``task`` is in evaluation mode, on the CPU, in float32.

    Raises :class:`SettingError` where the packages are missing.
    """
    onnx = need_onnx()
    exported = to_onnx(task)
    exported.model.metadata_props[KEY] = json.dumps(describe(task) | {"int8": int8}, ensure_ascii=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic.disk_errors(path), tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        written = Path(folder) / path.name
        exported.save(written)
        if int8:
            quantise(written)
        onnx.checker.check_model(written)
        for part in sorted(written.parent.iterdir(), reverse=True):  # the weights before what refers to them
            atomic.write(path.parent / part.name, part.replace)


def need_onnx() -> Any:
    """The package `onnx`. Raises :class:`SettingError` if it, or what works with it, is not installed."""
    try:
        import onnx
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise SettingError("ONNX files are written with onnx and onnxscript: pip install 'vitrail[export]'.") from error
    return onnx


def to_onnx(task: Classification) -> Any:
    """The task as a `torch.onnx.ONNXProgram`."""
    program = trace(task)
    with _quiet():
        exported: Any = torch.onnx.export(
            program,
            dynamo=True,
            opset_version=OPSET,
            input_names=[IMAGES],
            output_names=[LOGITS],
            dynamic_shapes={IMAGES: {0: "batch"}},
            verbose=False,
        )
    forget_sources(exported.model)
    fold_kernels(exported.model)
    keep_borders(exported.model)
    return exported


def forget_sources(model: Any) -> None:
    """Drop what the exporter notes of the program behind each operation, with the paths of this machine's files.

    ``model`` is an `onnx_ir.Model`, changed in place.
    """
    for node in model.graph:
        node.metadata_props.clear()
        for value in (*node.inputs, *node.outputs):
            if value is not None:
                value.metadata_props.clear()


def fold_kernels(model: Any) -> None:
    """Compute once what a convolution's kernel is made of, such as BiT's, which are standardised.

    ``model`` is an `onnx_ir.Model`, changed in place.
    """
    from onnxscript.optimizer import fold_constants

    sought = [node.inputs[1].producer() for node in model.graph if node.op_type == "Conv"]
    found: set[Any] = set()
    while sought:
        node = sought.pop()
        if node is not None and node not in found:
            found.add(node)
            sought += [value.producer() for value in node.inputs if value is not None]
    if found:
        fold_constants(model, output_size_limit=2**31, should_fold=lambda node: node in found)


def keep_borders(model: Any) -> None:
    """Let a max-pool see the zeros around its map, as BiT's does.

    onnxruntime takes a Pad into the MaxPool behind it, where the border never wins, unless the Pad says which axes it
    is for; so it says so. ``model`` is an `onnx_ir.Model`, changed in place.
    """
    import numpy as np
    import onnx_ir

    for node in list(model.graph):
        if node.op_type != "Pad" or not any(user.op_type == "MaxPool" for user in node.outputs[0].consumers()):
            continue
        axes = np.arange(len(node.inputs[0].shape), dtype=np.int64)
        value = onnx_ir.Value(name=f"{node.outputs[0].name}_axes", const_value=onnx_ir.tensor(axes))
        model.graph.register_initializer(value)
        node.resize_inputs(4)  # data, pads, value, axes
        node.replace_input_with(3, value)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporter says of itself: that torchvision is not there, that parts of PyTorch will change."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)
