"""Every family goes out as an ONNX file and as a program, for any number of images, with the same logits."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from onnx import load

from vitrail import models
from vitrail.data.preprocess import Preprocess
from vitrail.export import onnx, program
from vitrail.export.predictor import open_onnx
from vitrail.tasks import Classification

spec = importlib.util.spec_from_file_location("sizes", Path(__file__).parents[1] / "contract" / "test_models.py")
assert spec is not None
assert spec.loader is not None
contract = importlib.util.module_from_spec(spec)
spec.loader.exec_module(contract)

# Of each family a model, and changes that make it shallow: an export takes as long as there are operations.
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "alexnet": ("alexnet", {}),
    "bit": ("bit-r50x1", {"depths": (1, 1), "image_size": (64, 48)}),
    "deit, distilled": ("deit-ti16-distilled", {"depth": 1}),
    "dinov3": ("dinov3-s16", {"depth": 1}),
    "googlenet": ("googlenet", {"image_size": (64, 48)}),
    "igpt": ("igpt-nano", {"depth": 2, "feature_layer": None}),
    "lenet": ("lenet-5", {}),
    "pvt": ("pvt-tiny", {"depths": (1, 1, 1, 1), "image_size": (64, 64)}),
    "pvt-v2": ("pvt-v2-b0", {"depths": (1, 1, 1, 1), "image_size": (64, 64)}),
    "resnet": ("resnet-18", {"depths": (1, 1, 1, 1)}),
    "rope-vit": ("rope-vit-s16", {"depth": 1}),
    "swin": ("swin-t", {"depths": (2, 1), "heads": (1, 2), "window": 4, "image_size": (40, 24)}),
    "t2t": ("t2t-7", {"depth": 1}),
    "t2t, of performers": ("t2t-t-14", {"depth": 1}),
    "vgg": ("vgg-11", {}),
    "vit, hybrid": ("vit-r-ti16", {"depth": 1}),
    "vit, attention pooling": ("vit-giant14", {"depth": 1}),
}


def test_no_family_is_left_out() -> None:
    assert {models.family(model) for model, _ in CASES.values()} == set(models.FAMILIES)


def task_of(case: str) -> Classification:
    model, changes = CASES[case]
    backbone = contract.small(model, **changes)
    channels = backbone.config.channels
    preprocess = Preprocess(
        backbone.config.image_size, "squash", 1.0, "bicubic", (0.4,) * channels, (0.3,) * channels, channels
    )
    task = Classification(model, backbone, ("ant", "bee", "cat"), preprocess)
    contract.randomised(task.head)
    for name, buffer in task.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            buffer.add_(torch.rand_like(buffer) * 0.1)
    return task.eval()


@pytest.mark.parametrize("case", CASES)
def test_logits_are_the_same(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = task_of(case)
    preprocess = task.preprocess
    images = torch.randint(0, 256, (3, preprocess.channels, *preprocess.size), dtype=torch.uint8)
    with torch.inference_mode():
        expected = task(images)
    assert expected.std() > 1e-3
    traced = program.trace(task)
    for module in (program, onnx):
        monkeypatch.setattr(module, "trace", lambda _: traced)  # once for both
    program.write_program(task, tmp_path / "model.pt2")
    onnx.write_onnx(task, tmp_path / "model.onnx")
    for run in (program.read_program(tmp_path / "model.pt2"), open_onnx(tmp_path / "model.onnx")):
        for count in (1, 3):
            torch.testing.assert_close(run(images[:count]), expected[:count], atol=1e-4, rtol=1e-5)
    graph = load(tmp_path / "model.onnx").graph
    kernels = {node.input[1] for node in graph.node if node.op_type == "Conv"}
    assert kernels <= {each.name for each in graph.initializer}  # computed once, so that int8 may round them
