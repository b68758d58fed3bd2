"""One doorway: whatever weights there are become a task that gives the logits of where they come from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch import Tensor

from vitrail import models
from vitrail.data.preprocess import Preprocess
from vitrail.errors import CheckpointError, RunError, SettingError, UserError
from vitrail.tasks import Classification
from vitrail.weights.load import load, load_pretrained
from vitrail.weights.save import save_description, save_weights

SHAPE: dict[str, Any] = {
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 48,
    "image_size": 32,
    "patch_size": 8,
}
OURS = {"width": 24, "depth": 2, "heads": 3, "mlp": 48, "image_size": 32, "patch_size": 8, "norm_eps": 1e-12}
NAMES = {0: "ant", 1: "bee", 2: "cat"}


def theirs(kind: str = "ViTForImageClassification", **changes: Any) -> Any:
    """A tiny network of Transformers with random weights everywhere."""
    torch.manual_seed(0)
    cls = getattr(transformers, kind)
    model = cls(cls.config_class(**{**SHAPE, "id2label": NAMES, **changes})).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    theirs().save_pretrained(tmp_path / "vit")
    return tmp_path / "vit"


def images(count: int = 2, channels: int = 3, size: tuple[int, int] = (32, 32)) -> Tensor:
    return torch.randn(count, channels, *size, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def logits(model: Any, x: Tensor, **options: Any) -> Tensor:
    answer = model(x, **options)
    return getattr(answer, "logits", answer)


def classifier(reference: Any, **settings: Any) -> Classification:
    task = load(reference, **settings)
    assert isinstance(task, Classification)
    return task


def refusal(reference: object, kind: type[UserError] = CheckpointError, **settings: Any) -> str:
    with pytest.raises(kind) as caught:
        load(str(reference), **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ------------------------------------------------------------------------------------------------------ what comes back


def test_a_folder_that_says_what_it_is(folder: Path) -> None:
    task = classifier(folder)
    assert not task.training
    assert task.classes == ("ant", "bee", "cat")
    assert task.preprocess.size == (32, 32)
    torch.testing.assert_close(logits(task, images()), logits(theirs(), images()), atol=1e-5, rtol=1e-5)
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    assert {scored.label for scored in task.predict(pixels)} == {"ant", "bee", "cat"}


def test_the_hub(folder: Path, hub: Any) -> None:
    hub.add("org/vit", {path.name: path.read_bytes() for path in folder.iterdir()})
    assert torch.equal(logits(load("hf:org/vit"), images()), logits(load(folder), images()))


def test_a_file_that_a_person_explains(tmp_path: Path) -> None:
    torch.save({"state_dict": theirs().state_dict()}, tmp_path / "weights.pth")
    stated = {"layout": "transformers-5", "model": "vit-ti16", "config": OURS}
    task = classifier(tmp_path / "weights.pth", **stated)
    assert task.classes == ("0", "1", "2")
    torch.testing.assert_close(logits(task, images()), logits(theirs(), images()), atol=1e-5, rtol=1e-5)
    named = classifier(tmp_path / "weights.pth", classes=["x", "y", "z"], **stated)
    assert named.classes == ("x", "y", "z")
    assert "2 names were given for the 3 classes" in refusal(
        tmp_path / "weights.pth", SettingError, classes=["x", "y"], **stated
    )


def test_parts_with_an_index(tmp_path: Path) -> None:
    theirs().save_pretrained(tmp_path, max_shard_size="10KB")
    assert (tmp_path / "model.safetensors.index.json").is_file()
    torch.testing.assert_close(logits(load(tmp_path), images()), logits(theirs(), images()), atol=1e-5, rtol=1e-5)
    sorted(tmp_path.glob("model-*.safetensors"))[1].unlink()
    assert "the checkpoint is incomplete" in refusal(tmp_path)


def test_weights_of_half_precision_are_used_in_single(tmp_path: Path) -> None:
    theirs().half().save_pretrained(tmp_path)
    task = classifier(tmp_path)
    assert {parameter.dtype for parameter in task.parameters()} == {torch.float32}
    torch.testing.assert_close(logits(task, images()), logits(theirs().half().float(), images()), atol=1e-5, rtol=1e-5)


def test_a_backbone_alone(tmp_path: Path) -> None:
    theirs("ViTModel", add_pooling_layer=False).save_pretrained(tmp_path)
    found = load_pretrained(tmp_path)
    assert (found.classes, found.head) == ((), {})
    said = refusal(tmp_path)
    assert f"{tmp_path} has no classifier; train one on it with `vitrail train DATA --weights {tmp_path}`" in said


def test_the_backbone_of_a_classifier(folder: Path) -> None:
    found = load_pretrained(folder)
    assert found.classes == ("ant", "bee", "cat")
    assert set(found.head) == {"linear.weight", "linear.bias"}
    assert found.resampling == "bicubic"


def test_the_size_that_images_are_prepared_for_is_the_models(tmp_path: Path) -> None:
    """DINOv2's config has the size of its last training, its processor another."""
    changes = {"image_size": 70, "patch_size": 14, "mlp_ratio": 2}
    model = theirs("Dinov2ForImageClassification", **changes)
    model.save_pretrained(tmp_path)
    processor = {"size": {"shortest_edge": 32}, "crop_size": {"height": 28, "width": 28}, "do_center_crop": True}
    (tmp_path / "preprocessor_config.json").write_text(
        json.dumps({**processor, "image_processor_type": "BitImageProcessor", "resample": 3})
    )
    task = classifier(tmp_path)
    assert task.preprocess.size == task.backbone.config.image_size == (28, 28)
    x = images(size=(28, 28))
    torch.testing.assert_close(logits(task, x), logits(model, x), atol=1e-4, rtol=1e-4)
    assert classifier(tmp_path, image_size=70).preprocess.size == (70, 70)


# ------------------------------------------------------------------------------------------------------- other shapes


@pytest.mark.parametrize("size", [(48, 48), (16, 40)])
def test_another_image_size(folder: Path, size: tuple[int, int]) -> None:
    task, x = classifier(folder, image_size=size), images(size=size)
    assert task.preprocess.size == size
    expected = logits(theirs(), x, interpolate_pos_encoding=True)
    torch.testing.assert_close(logits(task, x), expected, atol=1e-5, rtol=1e-5)


def test_grey_images(folder: Path) -> None:
    task, x = classifier(folder, channels=1), images(channels=1)
    assert (task.preprocess.channels, task.preprocess.mean) == (1, (0.5,))
    torch.testing.assert_close(logits(task, x), logits(theirs(), x.expand(-1, 3, -1, -1)), atol=1e-5, rtol=1e-5)


def test_a_fourth_channel(folder: Path) -> None:
    """timm's rule: the kernels in turn, scaled so that their sum keeps its size."""
    task, x = classifier(folder, channels=4), images(channels=4)
    assert (task.preprocess.channels, task.preprocess.std) == (4, (0.5,) * 4)
    model = theirs()
    projection = model.vit.embeddings.patch_embeddings.projection
    kernel = projection.weight.detach()[:, [0, 1, 2, 0]] * 0.75
    by_hand = torch.nn.functional.conv2d(x, kernel, projection.bias, stride=8).flatten(2).transpose(1, 2)
    model.vit.embeddings.patch_embeddings.forward = lambda *_, **__: by_hand
    torch.testing.assert_close(logits(task, x), logits(model, images()), atol=1e-5, rtol=1e-5)


def test_larger_patches_see_an_enlarged_image_as_before(folder: Path) -> None:
    """What the pseudo-inverse is for (Beyer et al. 2023, FlexiViT, eq. 2), where enlarging loses nothing."""
    task, x = classifier(folder, patch_size=16, image_size=64), images()
    assert task.backbone.config.patch_size == 16
    patches = x.unfold(2, 8, 8).unfold(3, 8, 8).reshape(-1, 1, 8, 8)  # (B · C · 4 · 4, 1, 8, 8)
    enlarged = torch.nn.functional.interpolate(patches, scale_factor=2, mode="bicubic", antialias=True)
    whole = enlarged.reshape(2, 3, 4, 4, 16, 16).transpose(3, 4).reshape(2, 3, 64, 64)
    torch.testing.assert_close(logits(task, whole), logits(theirs(), x), atol=1e-4, rtol=1e-4)


def test_changes_that_cannot_be(folder: Path) -> None:
    assert "has no setting 'colour'" in refusal(folder, SettingError, colour=3)
    assert "cannot be made into those of a model with depth=3" in refusal(folder, SettingError, depth=3)
    assert "not divisible" in refusal(folder, SettingError, image_size=33)


# ---------------------------------------------------------------------------------------------------------- our own


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run's folder of a model that answers with many labels."""
    torch.manual_seed(0)
    backbone = models.create("vit-ti16", **OURS)
    preprocess = Preprocess(size=(32, 32), resize="squash", centre="floor", mean=(0.1, 0.2, 0.3))
    task = Classification("vit-ti16", backbone, ("ant", "bee"), preprocess, many_labels=True, temperature=1.7)
    save_description(task, tmp_path / "run")
    save_weights(task.state_dict(), tmp_path / "run")
    return tmp_path / "run"


def test_a_run_at_another_size_is_otherwise_the_same(run: Path) -> None:
    before, after = classifier(run), classifier(run, image_size=[16, 48], channels=1)
    assert (after.classes, after.many_labels, after.temperature) == (("ant", "bee"), True, 1.7)
    assert after.backbone.config.image_size == after.preprocess.size == (16, 48)
    assert (after.preprocess.channels, after.preprocess.centre, after.preprocess.resize) == (1, "floor", "squash")
    assert not after.training
    assert torch.equal(after.head.linear.weight, before.head.linear.weight)
    assert logits(after, images(channels=1, size=(16, 48))).shape == (2, 2)


def test_a_run_as_a_pretrained_backbone(run: Path) -> None:
    found = load_pretrained(run)
    assert (found.model, found.classes, found.preprocess.mean) == ("vit-ti16", ("ant", "bee"), (0.1, 0.2, 0.3))


def test_a_runs_folder_says_what_it_is_by_itself(run: Path, tmp_path: Path) -> None:
    assert "knows its classes" in refusal(run, SettingError, classes=["x", "y"])
    assert "there is no run folder" in refusal(tmp_path / "nothing", RunError)
    assert "give a run's folder, a file of weights" in refusal(tmp_path / "nothing.pth")


# --------------------------------------------------------------------------------------------------- what does not fit


def test_the_whole_difference_is_printed(tmp_path: Path) -> None:
    state = theirs().state_dict()
    del state["vit.layernorm.bias"]
    state["vit.extra"] = torch.zeros(1)
    torch.save(state, tmp_path / "weights.pth")
    said = refusal(tmp_path / "weights.pth", layout="transformers-5", model="vit-ti16", config={**OURS, "mlp": 40})
    assert said.startswith(f"{tmp_path / 'weights.pth'} does not fit the model vit-ti16: missing layernorm.bias; ")
    assert "unexpected extra" in said
    assert said.count("ours (backbone.blocks.") == 6  # both weights of both blocks, and the bias of the first


def test_a_checkpoint_of_another_family_or_size(tmp_path: Path) -> None:
    torch.save(theirs().state_dict(), tmp_path / "weights.pth")
    said = refusal(tmp_path / "weights.pth", layout="timm", model="resnet-18")
    assert "does not fit the model resnet-18: missing conv1.weight; " in said
    assert "unexpected vit.embeddings.cls_token" in said
    said = refusal(tmp_path / "weights.pth", layout="transformers-5", model="vit-ti16")
    assert "(1, 17, 24), ours (backbone.positions) (1, 197, 192)" in said


def test_a_config_that_is_not_that_of_the_weights(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 3}))
    assert "does not fit the model vit: missing " in refusal(folder)
    (folder / "config.json").write_text(json.dumps({**config, "hidden_act": "selu"}))
    assert "its config.json cannot be used: " in refusal(folder)


def test_damaged_files(folder: Path) -> None:
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[:-1])
    assert "is damaged, cut short or no file of weights" in refusal(folder)
    (folder / "model.safetensors").unlink()
    assert "there is no run folder" not in (said := refusal(folder, UserError))
    assert str(folder) in said
