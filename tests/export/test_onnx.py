"""An ONNX file: what is in it, what runs it, and what is said of one that cannot be used."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from vitrail import models
from vitrail.data.preprocess import Preprocess
from vitrail.errors import CheckpointError, SettingError
from vitrail.export.onnx import OPSET, write_onnx
from vitrail.export.predictor import Exported, Session, open_onnx, providers
from vitrail.tasks import Classification

SHAPE = {"width": 64, "depth": 2, "heads": 2, "mlp": 256, "patch_size": 8, "image_size": (16, 16)}
CLASSES = ("ant", "bee", "cät")


def vit(**options: object) -> Classification:
    torch.manual_seed(0)
    preprocess = Preprocess((16, 16), "crop", 0.875, "bilinear", (0.4, 0.5, 0.6), (0.2, 0.3, 0.4))
    task = Classification("vit-s16", models.create("vit-s16", **SHAPE), CLASSES, preprocess, **options)  # type: ignore[arg-type]
    torch.nn.init.normal_(task.head.linear.weight, std=0.3)  # type: ignore[union-attr, arg-type]
    return task.eval()


def some_images(count: int = 64) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    write_onnx(vit(temperature=1.5), path)
    return path


@pytest.fixture(scope="module")
def quantised(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("int8") / "model.onnx"
    write_onnx(vit(), path, int8=True)
    return path


def test_one_file_without_vitrail(written: Path) -> None:
    assert [file.name for file in written.parent.iterdir()] == ["model.onnx"]
    session = onnxruntime.InferenceSession(written)
    (images,), (logits,) = session.get_inputs(), session.get_outputs()
    assert (images.name, images.type, images.shape) == ("images", "tensor(uint8)", ["batch", 3, 16, 16])
    assert (logits.name, logits.type, logits.shape) == ("logits", "tensor(float)", ["batch", 3])
    for count in (1, 2, 7):
        found = session.run(None, {"images": some_images(count).numpy()})[0]
        with torch.inference_mode():
            np.testing.assert_allclose(found, vit()(some_images(count)).numpy(), atol=1e-5)
    description = json.loads(session.get_modelmeta().custom_metadata_map["vitrail"])
    assert description["classes"] == list(CLASSES)
    assert description["model"] == "vit-s16"
    assert description["config"]["width"] == 64
    assert Preprocess.from_json(description["preprocess"]) == vit().preprocess
    assert (description["temperature"], description["many_labels"], description["int8"]) == (1.5, False, False)


def test_the_file_is_as_stated(written: Path) -> None:
    model = onnx.load(written)
    assert [(each.domain, each.version) for each in model.opset_import] == [("", OPSET)]
    onnx.checker.check_model(model, full_check=True)


def test_no_path_of_this_machine_is_in_it(written: Path) -> None:
    content = written.read_bytes()
    assert b".py" not in content
    assert b"vitrail/" not in content
    weights = sum(tensor.nbytes for tensor in vit().state_dict().values())
    assert written.stat().st_size < weights + 60_000


def test_it_answers_as_the_task(written: Path) -> None:
    task, exported = vit(temperature=1.5), open_onnx(written)
    assert isinstance(exported, Exported)
    assert (exported.model, exported.classes, exported.many_labels) == (task.model, task.classes, False)
    assert (exported.temperature, exported.preprocess) == (1.5, task.preprocess)
    with torch.inference_mode():
        logits, expected = exported(some_images()), task(some_images())
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(exported.scores(logits), task.scores(expected))
    for mine, theirs in zip(exported.decode(logits, 2), task.decode(expected, 2), strict=True):
        assert [each.label for each in mine] == [each.label for each in theirs]
        assert [each.score for each in mine] == pytest.approx([each.score for each in theirs], abs=2e-6)
    pixels = np.random.default_rng(0).integers(0, 256, (40, 30, 3)).astype(np.uint8)
    assert [each.label for each in exported.predict(pixels)] == [each.label for each in task.predict(pixels)]


def test_many_labels(tmp_path: Path) -> None:
    write_onnx(vit(many_labels=True), tmp_path / "model.onnx")
    exported = open_onnx(tmp_path / "model.onnx")
    with torch.inference_mode():
        scores = exported.scores(exported(some_images()))
        torch.testing.assert_close(scores, vit(many_labels=True)(some_images()).sigmoid())
    assert exported.score == "map"


def test_weights_that_are_too_large_for_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.onnx._internal.exporter._onnx_program._LARGE_MODEL_THRESHOLD", 1000)
    write_onnx(vit(), tmp_path / "model.onnx")
    assert {file.name for file in tmp_path.iterdir()} == {"model.onnx", "model.onnx.data"}
    assert (tmp_path / "model.onnx").stat().st_size < (tmp_path / "model.onnx.data").stat().st_size
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    for file in list(tmp_path.glob("model*")):
        file.rename(moved / file.name)
    with torch.inference_mode():
        expected = vit()(some_images())
    torch.testing.assert_close(open_onnx(moved / "model.onnx")(some_images()), expected, atol=1e-5, rtol=1e-5)
    write_onnx(vit(), tmp_path / "model.onnx", int8=True)  # a quarter of them fits again
    assert {file.name for file in tmp_path.iterdir()} == {"model.onnx", "elsewhere"}
    (moved / "model.onnx.data").unlink()
    with pytest.raises(CheckpointError, match="is damaged, cut short or no ONNX file"):
        open_onnx(moved / "model.onnx")


def test_an_error_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model.onnx").write_text("mine")

    def fails(path: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("vitrail.export.onnx.quantise", fails)
    with pytest.raises(KeyboardInterrupt):
        write_onnx(vit(), tmp_path / "model.onnx", int8=True)
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]
    assert (tmp_path / "model.onnx").read_text() == "mine"


# --- weights of 8 bits


def test_weights_of_8_bits(written: Path, quantised: Path) -> None:
    assert quantised.stat().st_size < 0.5 * written.stat().st_size
    stored = {onnx.TensorProto.DataType.Name(each.data_type): each for each in onnx.load(quantised).graph.initializer}
    assert "INT8" not in stored  # signed products overflow on older processors
    sizes = {"UINT8": 0, "FLOAT": 0}
    for each in onnx.load(quantised).graph.initializer:
        name = onnx.TensorProto.DataType.Name(each.data_type)
        sizes[name] = sizes.get(name, 0) + int(np.prod(each.dims))
    assert sizes["UINT8"] > 10 * sizes["FLOAT"]
    with torch.inference_mode():
        before, after = vit()(some_images()), open_onnx(quantised)(some_images())
    assert not torch.equal(before, after)
    assert (before - after).abs().max() < 0.1 * before.abs().max()
    assert (before.argmax(dim=1) == after.argmax(dim=1)).float().mean() > 0.9


def test_an_answer_of_8_bits_does_not_depend_on_the_other_images(quantised: Path) -> None:
    exported, images = open_onnx(quantised), some_images(8)
    together = exported(images)
    alone = torch.cat([exported(image[None]) for image in images])
    assert torch.equal(together, alone)
    session = Session(quantised)  # which computes them together does
    assert not torch.equal(session(images), alone)


# --- refusals


def changed(path: Path, to: Path, metadata: dict[str, str]) -> Path:
    model = onnx.load(path)
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, metadata)
    onnx.save(model, to)
    return to


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"there is no file .*model.onnx; write one with"):
        open_onnx(tmp_path / "model.onnx")


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x00" * 100])
def test_garbage(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"model.onnx (is damaged, cut short or no ONNX file|was not exported)"):
        open_onnx(tmp_path / "model.onnx")


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_file_that_is_cut_short(share: float, written: Path, tmp_path: Path) -> None:
    content = written.read_bytes()
    (tmp_path / "model.onnx").write_bytes(content[: int(share * len(content))])
    with pytest.raises(CheckpointError, match="is damaged, cut short or no ONNX file"):
        open_onnx(tmp_path / "model.onnx")


def test_somebody_elses_file(written: Path, tmp_path: Path) -> None:
    foreign = changed(written, tmp_path / "model.onnx", {})
    with pytest.raises(CheckpointError, match="was not exported by Vitrail: it has no metadata 'vitrail'"):
        open_onnx(foreign)


@pytest.mark.parametrize(
    ("description", "words"),
    [
        ("{", "the metadata 'vitrail' of .* are damaged"),
        ("[]", "the metadata 'vitrail' of .* are damaged"),
        ('{"format": 1}', "its description is damaged"),
        ('{"format": 99, "vitrail": "9.0"}', r"was written by a newer Vitrail \(9.0\)"),
    ],
)
def test_a_description_that_says_too_little(description: str, words: str, written: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=words):
        open_onnx(changed(written, tmp_path / "model.onnx", {"vitrail": description}))


def test_a_description_of_another_model(written: Path, tmp_path: Path) -> None:
    description = json.loads(onnx.load(written).metadata_props[0].value)
    description["classes"] = ["one", "two"]
    with pytest.raises(CheckpointError, match="reads and gives something else than its description says"):
        open_onnx(changed(written, tmp_path / "model.onnx", {"vitrail": json.dumps(description)}))


@pytest.mark.parametrize("images", [torch.zeros(2, 3, 16, 16), torch.zeros(2, 3, 8, 8, dtype=torch.uint8)])
def test_images_that_it_does_not_read(images: torch.Tensor, written: Path) -> None:
    with pytest.raises(SettingError, match=r"this model reads images \(3, 16, 16\) of torch.uint8"):
        open_onnx(written)(images)


def test_without_the_packages(written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(SettingError, match=r"pip install 'vitrail\[export\]'"):
        open_onnx(written)
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(SettingError, match=r"pip install 'vitrail\[export\]'"):
        write_onnx(vit(), tmp_path / "model.onnx")


# --- where it computes


def test_what_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    both = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: both)
    assert providers("cuda") == ["CUDAExecutionProvider", "CPUExecutionProvider"]
    assert providers("cpu") == ["CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: both[2:])
    assert providers("cuda") == ["CPUExecutionProvider"]


def test_as_many_threads_as_pytorch(written: Path) -> None:
    options = Session(written).on("cpu").get_session_options()
    assert options.intra_op_num_threads == torch.get_num_threads()
