"""What is exported is what other libraries open themselves, with the same logits; and it comes back bit by bit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import safetensors.torch
import torch
import transformers

from vitrail import models
from vitrail.data.preprocess import Preprocess
from vitrail.errors import SettingError
from vitrail.export.checkpoint import layout_of, transformers_preprocessor, write_checkpoint
from vitrail.tasks import Classification
from vitrail.weights.load import load

TRANSFORMER = {"width": 24, "depth": 2, "heads": 3, "mlp": 48, "patch_size": 8, "image_size": (32, 32)}
PYRAMID = {"widths": (8, 8, 12, 16), "depths": (1, 2, 1, 2), "heads": (1, 2, 3, 4), "image_size": (64, 64)}
SWIN = {"width": 8, "depths": (2, 2), "heads": (1, 2), "window": 4, "image_size": (64, 64)}
DINOV2 = {**TRANSFORMER, "pool": "class-mean", "layer_scale": 1.0, "mlp": 96}

BIT = {"width": 8, "groups": 4, "depths": (1, 2), "image_size": (64, 48), "conv_eps": 1e-8}
ONE_EPSILON = {**PYRAMID, "conv_norm_eps": 1e-6}

# Models that are small, each with the libraries that can hold it.
CASES: dict[str, tuple[str, dict[str, Any], tuple[str, ...]]] = {
    "bit": ("bit-r50x1", BIT, ("transformers",)),
    "bit, as published": ("bit-r50x1", {"conv_eps": 1e-8, "image_size": (64, 64)}, ("timm",)),
    "deit": ("deit-ti16", TRANSFORMER, ("timm",)),
    "deit, distilled": ("deit-ti16-distilled", TRANSFORMER, ("timm", "transformers")),
    "deit, layer scale": ("deit3-s16", TRANSFORMER, ("timm",)),
    "dinov3": ("dinov3-s16", TRANSFORMER, ("timm",)),
    "pvt": ("pvt-tiny", ONE_EPSILON, ("transformers",)),
    "pvt-v2": ("pvt-v2-b1", PYRAMID, ("timm",)),
    "pvt-v2, one epsilon": ("pvt-v2-b1", ONE_EPSILON, ("transformers",)),
    "pvt-v2, linear": ("pvt-v2-b2-li", ONE_EPSILON, ("transformers",)),
    "resnet": ("resnet-18", {"depths": (1, 2, 1, 1), "image_size": (64, 48)}, ("timm", "transformers")),
    "resnet, bottleneck": ("resnet-50", {"depths": (1, 2, 1, 1), "image_size": (64, 64)}, ("timm", "transformers")),
    "resnext": ("resnext-50-32x4d", {"depths": (1, 1, 1, 1), "image_size": (64, 64)}, ("timm",)),
    "rope-vit": ("rope-vit-s16", TRANSFORMER, ("timm",)),
    "swin": ("swin-t", SWIN, ("timm", "transformers")),
    "swin, not square": ("swin-t", {**SWIN, "image_size": (128, 64)}, ("timm", "transformers")),
    "vit": ("vit-s16", TRANSFORMER, ("timm", "transformers")),
    "vit, mean of the patches": ("vit-s16", {**TRANSFORMER, "pool": "mean", "norm": "pooled"}, ("timm",)),
    "vit, not square": ("vit-s16", {**TRANSFORMER, "image_size": (16, 40)}, ("timm", "transformers")),
    "vit, grey": ("vit-s16", {**TRANSFORMER, "channels": 1}, ("timm", "transformers")),
    "vit, as DINOv2": ("vit-s16", DINOV2, ("transformers",)),
    "vit, as DINOv2 with registers": ("vit-s16", {**DINOV2, "registers": 2}, ("transformers",)),
}
WRITTEN = {  # which libraries have which family
    **dict.fromkeys(("bit", "deit", "dinov3", "pvt-v2", "resnet", "swin", "vit"), ("timm", "transformers")),
    **dict.fromkeys(("rope-vit", "vgg"), ("timm",)),
    **dict.fromkeys(("alexnet", "googlenet", "igpt", "lenet", "t2t"), ()),
    "pvt": ("transformers",),
}
PAIRS = [(case, library) for case, (_, _, libraries) in CASES.items() for library in libraries]
CLASSES = ("ant", "bee", "cat")


def task_of(case: str, preprocess: dict[str, Any] | None = None, **options: Any) -> Classification:
    """A task with no parameter or statistic at a special value."""
    model, changes, _ = CASES[case]
    torch.manual_seed(0)
    backbone = models.create(model, **changes)
    size, channels = backbone.config.image_size, backbone.config.channels
    means: dict[str, Any] = {"mean": (0.4,) * channels, "std": (0.2,) * channels, "channels": channels}
    settings = {"size": size, "resize": "squash", **means, **(preprocess or {})}
    task = Classification(model, backbone, CLASSES, Preprocess(**settings), **options)
    with torch.no_grad():
        for tensor in task.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(torch.randn_like(tensor).abs() * 0.1)
    return task.eval()


def read(folder: Path, name: str = "config.json") -> dict[str, Any]:
    content = json.loads((folder / name).read_text(encoding="utf-8"))
    assert isinstance(content, dict)
    return content


def transformers_model(folder: Path) -> Any:
    """The folder, opened by Transformers itself, which would say what is missing or left over."""
    kind = getattr(transformers, read(folder)["architectures"][0])
    model, info = kind.from_pretrained(folder, output_loading_info=True)
    missing = [name for name in info["missing_keys"] if not name.endswith("mask_token")]  # of DINOv2's pre-training
    assert not any((missing, info["unexpected_keys"], info["mismatched_keys"])), info
    return model.eval()


def images(task: Classification) -> torch.Tensor:
    config = task.backbone.config
    return torch.randn(2, config.channels, *config.image_size, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
@pytest.mark.parametrize("case", [case for case, library in PAIRS if library == "transformers"])
def test_transformers_gives_the_same_logits(case: str, tmp_path: Path) -> None:
    task = task_of(case)
    write_checkpoint(task, "transformers", tmp_path)
    expected, found = task(images(task)), transformers_model(tmp_path)(images(task)).logits
    scale = max(1.0, expected.abs().max().item())
    torch.testing.assert_close(found, expected, atol=1e-5 * scale, rtol=1e-5)


@pytest.mark.parametrize(("case", "library"), PAIRS)
def test_there_and_back_is_bit_equal(case: str, library: Any, tmp_path: Path) -> None:
    task = task_of(case)
    write_checkpoint(task, library, tmp_path)
    back = load(tmp_path)
    assert isinstance(back, Classification)
    assert back.classes == CLASSES
    assert (back.preprocess.size, back.preprocess.mean) == (task.preprocess.size, task.preprocess.mean)
    ours, theirs = task.state_dict(), back.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert torch.equal(task(images(task)), back(images(task)))
    write_checkpoint(back, library, tmp_path / "again")
    for file in ("config.json", "model.safetensors"):
        assert (tmp_path / "again" / file).read_bytes() == (tmp_path / file).read_bytes()


@pytest.mark.parametrize("library", ["timm", "transformers"])
@pytest.mark.parametrize("family", models.FAMILIES)
def test_a_family_that_a_library_does_not_have(family: str, library: Any) -> None:
    model = next(iter(models.FAMILIES[family].sizes))
    with torch.device("meta"):
        task = Classification(model, models.create(model), CLASSES, Preprocess(size=(224, 224)))
    if library in WRITTEN[family]:
        assert layout_of(task, library).write is not None
        return
    with pytest.raises(SettingError) as caught:
        layout_of(task, library)
    remedy = f"export to {' or '.join(WRITTEN[family])}." if WRITTEN[family] else "no other library does."
    assert str(caught.value) == f"{library} has no {family}; {remedy}"


def test_a_model_that_a_library_cannot_express(tmp_path: Path) -> None:
    with torch.device("meta"):
        task = Classification("vit-22b14", models.create("vit-22b14"), CLASSES, Preprocess(size=(224, 224)))
    for library in ("timm", "transformers"):
        with pytest.raises(SettingError, match=r"cannot be written for it\."):
            write_checkpoint(task, library, tmp_path / "out")  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


# ------------------------------------------------------------------------------------------- classes and preprocessing


def test_the_folder_of_transformers_has_the_labels(tmp_path: Path) -> None:
    write_checkpoint(task_of("vit"), "transformers", tmp_path)
    config = transformers_model(tmp_path).config
    assert config.id2label == {0: "ant", 1: "bee", 2: "cat"}
    assert config.label2id == {"ant": 0, "bee": 1, "cat": 2}
    assert config.problem_type == "single_label_classification"
    write_checkpoint(task_of("vit", many_labels=True), "transformers", tmp_path)
    assert transformers_model(tmp_path).config.problem_type == "multi_label_classification"


def test_the_folder_of_timm_has_the_labels_and_the_preprocessing(tmp_path: Path) -> None:
    preparation = {"resize": "crop", "crop_fraction": 0.9, "interpolation": "bilinear"}
    write_checkpoint(task_of("resnet", preparation), "timm", tmp_path)
    config = read(tmp_path)
    assert config["label_names"] == ["ant", "bee", "cat"]
    assert (config["num_classes"], config["num_features"]) == (3, 512)
    cfg = config["pretrained_cfg"]
    assert cfg["input_size"] == [3, 64, 48]
    assert (cfg["crop_pct"], cfg["crop_mode"], cfg["interpolation"]) == (0.9, "center", "bilinear")
    assert {file.name for file in tmp_path.iterdir()} == {"config.json", "model.safetensors"}


def test_the_weights_say_that_they_are_pytorchs(tmp_path: Path) -> None:
    write_checkpoint(task_of("vit"), "transformers", tmp_path)
    with safetensors.safe_open(tmp_path / "model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}


@pytest.mark.parametrize(
    "preparation",
    [
        {"resize": "squash", "interpolation": "bicubic"},
        {"resize": "squash", "crop_fraction": 0.875, "interpolation": "bilinear"},
        {"resize": "crop", "crop_fraction": 0.875, "interpolation": "bicubic", "centre": "floor"},
        {"resize": "crop", "crop_fraction": 1.0, "interpolation": "nearest", "centre": "floor"},
    ],
    ids=str,
)
def test_transformers_prepares_images_alike(preparation: dict[str, Any]) -> None:
    preprocess = Preprocess(size=(40, 40), mean=(0.1, 0.2, 0.3), std=(0.3, 0.2, 0.1), **preparation)
    config = transformers_preprocessor(preprocess)
    processor = getattr(transformers, config["image_processor_type"] + "Pil")(**config)
    rng = np.random.default_rng(0)
    for height, width in ((64, 80), (91, 40), (40, 40), (33, 57)):
        pixels = rng.integers(0, 256, (height, width, 3)).astype(np.uint8)
        theirs = processor(PIL.Image.fromarray(pixels), return_tensors="pt")["pixel_values"][0]
        ours = torch.from_numpy(preprocess.view(pixels)[0]).permute(2, 0, 1)[None]
        torch.testing.assert_close(preprocess.normalize(ours)[0], theirs.float(), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("preparation", "library"),
    [({"resize": "pad"}, "timm"), ({"resize": "pad"}, "transformers"), ({"resize": "crop"}, "transformers")],
)
def test_preprocessing_that_a_library_cannot_express(preparation: dict[str, Any], library: Any, tmp_path: Path) -> None:
    task = task_of("vit, not square", preparation)
    with pytest.raises(SettingError, match=r"cannot p(ad|repare)"):
        write_checkpoint(task, library, tmp_path / "out")
    assert not (tmp_path / "out").exists()
