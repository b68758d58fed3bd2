"""Images are prepared to the pixel as the libraries prepare them that the weights come from."""

from __future__ import annotations

import importlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch

from vitrail.data.preprocess import Preprocess
from vitrail.errors import CheckpointError
from vitrail.weights.preprocessing import from_timm, from_transformers, kept, statistics

HALF = (0.5, 0.5, 0.5)
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
SIZES = [(480, 640), (300, 201), (224, 224), (257, 256), (97, 103), (40, 31), (500, 333), (223, 400)]


def pictures() -> list[PIL.Image.Image]:
    """Noise, edges and slopes of many sizes; real pictures where there are any."""
    rng = np.random.default_rng(0)
    found = []
    for h, w in SIZES:
        pixels = rng.integers(0, 256, (h, w, 3)).astype(np.uint8)
        pixels[: h // 2] = (np.arange(w) * 255 // w)[None, :, None]
        pixels[h // 3 : h // 3 + 5] = 255
        found.append(PIL.Image.fromarray(pixels))
    if "VITRAIL_DATA" in os.environ:
        photos = Path(os.environ["VITRAIL_DATA"], "photos")
        found += [PIL.Image.open(photos / name).convert("RGB") for name in ("coffee.png", "chelsea.png", "rocket.jpg")]
    return found


def prepared(preprocess: Preprocess, picture: PIL.Image.Image) -> torch.Tensor:
    """``(3, h, w)`` float32, normalised."""
    pixels, _ = preprocess.view(np.array(picture))
    return preprocess.normalize(torch.from_numpy(pixels).permute(2, 0, 1)[None])[0]


def grey_levels(difference: torch.Tensor, std: tuple[float, ...]) -> float:
    """The largest difference of two normalised images in units of 1/255."""
    return (difference.abs() * torch.tensor(std)[:, None, None]).max().item() * 255


# ------------------------------------------------------------------------------------------------------- Transformers

PROCESSORS = {  # the class, what differs from its own settings
    "ViT": ("vit", "ViT", {}),
    "ViT, not square": ("vit", "ViT", {"size": {"height": 96, "width": 64}, "resample": 3}),
    "ViT, nearest": ("vit", "ViT", {"size": {"height": 60, "width": 60}, "resample": 0}),
    "ViT, only resized": ("vit", "ViT", {"do_normalize": False, "size": {"height": 60, "width": 60}}),
    "ViT, from 0 to 255": ("vit", "ViT", {"do_rescale": False, "image_mean": [127.5] * 3, "image_std": [127.5] * 3}),
    "Swin": ("vit", "ViT", {"image_mean": IMAGENET[0], "image_std": IMAGENET[1], "resample": 3}),
    "DeiT": ("deit", "DeiT", {}),
    "DeiT, 384": ("deit", "DeiT", {"size": {"height": 438, "width": 438}, "crop_size": {"height": 384, "width": 384}}),
    "BiT": ("bit", "Bit", {}),
    "BiT, 448": ("bit", "Bit", {"size": {"shortest_edge": 448}, "crop_size": {"height": 448, "width": 448}}),
    "DINOv2": ("bit", "Bit", {"size": {"shortest_edge": 256}, "image_mean": IMAGENET[0], "image_std": IMAGENET[1]}),
    "an odd crop": ("bit", "Bit", {"size": {"shortest_edge": 85}, "crop_size": {"height": 64, "width": 64}}),
    "an odder crop": ("bit", "Bit", {"size": {"shortest_edge": 100}, "crop_size": {"height": 71, "width": 71}}),
    "ResNet": ("convnext", "ConvNext", {"size": {"shortest_edge": 224}}),
    "ConvNeXT, 384": ("convnext", "ConvNext", {}),
    "ConvNeXT, 0.95": ("convnext", "ConvNext", {"size": {"shortest_edge": 160}, "crop_pct": 0.95}),
    "PVT": ("pvt", "Pvt", {}),
    "LeViT": ("levit", "Levit", {}),
}


@pytest.mark.parametrize("case", PROCESSORS)
def test_as_transformers(case: str, tmp_path: Path) -> None:
    folder, kind, settings = PROCESSORS[case]
    module = importlib.import_module(f"transformers.models.{folder}.image_processing_pil_{folder}")
    processor = getattr(module, f"{kind}ImageProcessorPil")(**settings)
    processor.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "preprocessor_config.json").read_text())
    preprocess = from_transformers(config, (1, 1), 3)  # the file says the size
    for picture in pictures():
        theirs = processor(picture, return_tensors="pt")["pixel_values"][0].float()
        ours = prepared(preprocess, picture)
        assert ours.shape == theirs.shape
        assert grey_levels(ours - theirs, preprocess.std) < 0.01, picture.size


@pytest.mark.parametrize(
    ("config", "like"),
    [
        (  # google/vit-base-patch16-224-in21k before 2023
            {"feature_extractor_type": "ViTFeatureExtractor", "size": 224, "resample": 2, "do_resize": True},
            {"image_processor_type": "ViTImageProcessor", "size": {"height": 224, "width": 224}, "resample": 2},
        ),
        (  # facebook/deit-base-distilled-patch16-224
            {"feature_extractor_type": "DeiTFeatureExtractor", "size": 256, "crop_size": 224, "do_center_crop": True},
            {
                "size": {"height": 256, "width": 256},
                "crop_size": {"height": 224, "width": 224},
                "do_center_crop": True,
            },
        ),
        (  # microsoft/resnet-50
            {"feature_extractor_type": "ConvNextFeatureExtractor", "size": 224, "crop_pct": 0.875, "resample": 3},
            {"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 224}, "resample": 3},
        ),
    ],
    ids=["ViT", "DeiT", "ResNet"],
)
def test_older_files_say_the_same_in_other_words(config: dict[str, Any], like: dict[str, Any]) -> None:
    around = {"image_mean": HALF, "image_std": HALF}
    assert from_transformers({**config, **around}, (1, 1), 3) == from_transformers({**like, **around}, (1, 1), 3)


def test_a_file_without_a_size_leaves_it_to_the_model() -> None:
    assert from_transformers({"image_mean": HALF, "image_std": HALF}, (96, 64), 3).size == (96, 64)


def test_one_channel_of_three() -> None:
    preprocess = from_transformers({"size": 28, "image_mean": IMAGENET[0], "image_std": IMAGENET[1]}, (28, 28), 1)
    assert preprocess.channels == 1
    assert preprocess.mean == (sum(IMAGENET[0]) / 3,)
    assert from_transformers({"size": 28, "image_mean": [0.1], "image_std": [0.3]}, (28, 28), 1).mean == (0.1,)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"do_resize": False}, "does not resize images"),
        ({"resample": 1}, "resizes by '1', which Vitrail does not know"),
        (
            {"do_center_crop": True, "size": {"height": 256, "width": 300}, "crop_size": {"height": 224, "width": 224}},
            r"cuts \(224, 224\) out of \(256, 300\) pixels",
        ),
        (
            {"do_center_crop": True, "size": {"shortest_edge": 256}, "crop_size": {"height": 224, "width": 112}},
            r"cuts \(224, 112\) out of \(256, 256\) pixels",
        ),
    ],
)
def test_steps_that_are_none_of_ours(config: dict[str, Any], words: str) -> None:
    with pytest.raises(CheckpointError, match=words):
        from_transformers(config, (224, 224), 3)


def test_the_share_that_is_kept_gives_back_the_larger_size() -> None:
    for cropped in range(1, 300):
        for resized in range(cropped, 400, 7):
            assert int(cropped / kept(cropped, resized)) == resized


def test_statistics_for_any_number_of_channels() -> None:
    assert statistics([0.1, 0.2, 0.3], 3) == (0.1, 0.2, 0.3)
    assert statistics(0.5, 3) == (0.5, 0.5, 0.5)
    assert statistics([0.1, 0.3], 1) == (0.2,)


# --------------------------------------------------------------------------------------------------------------- timm


def timm_by_hand(picture: PIL.Image.Image, size: int, fraction: float, mode: str) -> np.ndarray[Any, Any]:
    """What `timm.data.create_transform` does for evaluation at a square size, in Pillow's words."""
    around = int(size / fraction)
    w, h = picture.size
    if mode == "center":
        short = min(w, h)
        picture = picture.resize((int(around * w / short), int(around * h / short)), PIL.Image.Resampling.BICUBIC)
    else:
        picture = picture.resize((around, around), PIL.Image.Resampling.BICUBIC)
    left, top = round((picture.width - size) / 2), round((picture.height - size) / 2)
    return np.array(picture.crop((left, top, left + size, top + size)))


@pytest.mark.parametrize("mode", ["center", "squash"])
@pytest.mark.parametrize(("size", "fraction"), [(224, 0.875), (224, 0.9), (384, 1.0), (65, 0.95), (64, 0.77)])
def test_as_timm(size: int, fraction: float, mode: str) -> None:
    config = {"pretrained_cfg": {"crop_pct": fraction, "crop_mode": mode, "interpolation": "bicubic"}}
    preprocess = from_timm(config, (size, size), 3)
    assert (preprocess.mean, preprocess.std) == IMAGENET
    for picture in pictures():
        assert np.array_equal(preprocess.view(np.array(picture))[0], timm_by_hand(picture, size, fraction, mode))


@pytest.mark.parametrize(("size", "fraction"), [((64, 48), 0.9), ((48, 64), 0.875), ((128, 64), 1.0), ((33, 70), 0.95)])
def test_as_timm_where_the_result_is_not_square(size: tuple[int, int], fraction: float) -> None:
    """timm's `ResizeKeepRatio` and torchvision's `CenterCrop`, in Pillow's words."""
    preprocess = from_timm({"pretrained_cfg": {"crop_pct": fraction, "interpolation": "bicubic"}}, size, 3)
    h, w = size
    for picture in pictures():
        ratio = min(picture.height / int(h / fraction), picture.width / int(w / fraction))
        around = round(picture.width / ratio), round(picture.height / ratio)
        left, top = round((around[0] - w) / 2), round((around[1] - h) / 2)
        theirs = picture.resize(around, PIL.Image.Resampling.BICUBIC).crop((left, top, left + w, top + h))
        assert np.array_equal(preprocess.view(np.array(picture))[0], np.array(theirs))


def test_what_timm_leaves_out() -> None:
    preprocess = from_timm({"pretrained_cfg": {"crop_pct": None, "crop_mode": None, "interpolation": ""}}, (8, 8), 3)
    assert (preprocess.crop_fraction, preprocess.resize, preprocess.interpolation) == (0.875, "crop", "bicubic")


def test_a_border_is_padding_and_only_of_the_whole_picture() -> None:
    assert from_timm({"pretrained_cfg": {"crop_mode": "border", "crop_pct": 1.0}}, (8, 8), 3).resize == "pad"
    for strange in ({"crop_mode": "border", "crop_pct": 0.9}, {"crop_mode": "other"}, {"interpolation": "lanczos"}):
        with pytest.raises(CheckpointError, match="which Vitrail does not know"):
            from_timm({"pretrained_cfg": strange}, (8, 8), 3)
