from __future__ import annotations

import json
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL.Image import Resampling

from vitrail.data.geometry import move_boxes, move_masks, move_points
from vitrail.data.preprocess import Preprocess, with_channels
from vitrail.data.sample import Boxes, Masks, Points, Sample, SemanticMap
from vitrail.errors import CheckpointError, SettingError


def picture(height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def shown(preprocess: Preprocess, image: np.ndarray) -> np.ndarray:
    return preprocess.apply(Sample(image, "x"))[0].image


# ---- pixels ----


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic"])
def test_squash_is_pillows_resize(interpolation: Any) -> None:
    image = picture(50, 90)
    expected = PIL.Image.fromarray(image).resize((32, 24), Resampling[interpolation.upper()])
    result = shown(Preprocess((24, 32), "squash", interpolation=interpolation), image)
    np.testing.assert_array_equal(result, np.asarray(expected))


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic"])
@pytest.mark.parametrize(
    ("height", "width", "resized", "left", "top"),
    [
        (300, 400, (341, 256), 58, 16),  # the shorter side becomes 224 / 0.875 = 256, the other int(256 * 400 / 300)
        (400, 300, (256, 341), 16, 58),  # (341 - 224) / 2 = 58.5, rounded to even
        (100, 100, (256, 256), 16, 16),
    ],
)
def test_crop_is_pillows_resize_and_centre_crop(
    height: int, width: int, resized: tuple[int, int], left: int, top: int, interpolation: Any
) -> None:
    image = picture(height, width)
    whole = PIL.Image.fromarray(image).resize(resized, Resampling[interpolation.upper()])
    expected = whole.crop((left, top, left + 224, top + 224))
    result = shown(Preprocess((224, 224), "crop", 0.875, interpolation), image)
    np.testing.assert_array_equal(result, np.asarray(expected))


def test_squash_and_cut_out_the_middle() -> None:
    """As Transformers prepares images for DeiT: to 256x256, then the middle 224x224."""
    image = picture(50, 90)
    whole = PIL.Image.fromarray(image).resize((256, 256), Resampling.BICUBIC)
    result = shown(Preprocess((224, 224), "squash", 0.875), image)
    np.testing.assert_array_equal(result, np.asarray(whole)[16:240, 16:240])


@pytest.mark.parametrize(("centre", "left"), [("round", 2), ("floor", 1)])
def test_half_a_pixel_is_rounded_as_the_library_of_the_weights_does(centre: Any, left: int) -> None:
    image = picture(20, 23)  # 3 columns too many: 1.5 on each side
    np.testing.assert_array_equal(shown(Preprocess((20, 20), centre=centre), image), image[:, left : left + 20])


def test_crop_to_another_shape_resizes_the_side_that_needs_more() -> None:
    image = picture(60, 60)
    whole = PIL.Image.fromarray(image).resize((40, 40), Resampling.BICUBIC)  # 20 high, 40 wide
    np.testing.assert_array_equal(shown(Preprocess((20, 40)), image), np.asarray(whole)[10:30])


def test_a_very_long_image_is_cropped_before_it_is_resized() -> None:
    image = picture(3, 90_000)  # resized whole it would be 224 x 6,720,000 pixels: 4.5 GB
    expected = PIL.Image.fromarray(image).resize((224, 224), Resampling.BILINEAR, box=(44998.5, 0, 45001.5, 3))
    result = shown(Preprocess((224, 224), interpolation="bilinear"), image)
    np.testing.assert_array_equal(result, np.asarray(expected))


def test_pad_resizes_the_longer_side_and_fills_up_with_the_mean_colour() -> None:
    image = picture(50, 100)
    preprocess = Preprocess((40, 40), "pad", interpolation="bilinear", mean=(0.2, 0.4, 0.6))
    result = shown(preprocess, image)
    np.testing.assert_array_equal(
        result[10:30], np.asarray(PIL.Image.fromarray(image).resize((40, 20), Resampling.BILINEAR))
    )
    assert (np.concatenate([result[:10], result[30:]]) == (51, 102, 153)).all()


def test_grey_is_repeated_and_rgb_becomes_luma() -> None:
    grey = picture(8, 8, 1)
    np.testing.assert_array_equal(shown(Preprocess((8, 8)), grey), np.concatenate([grey] * 3, axis=2))
    colour = picture(8, 8)
    one = shown(Preprocess((8, 8), mean=(0.5,), std=(0.5,), channels=1), colour)
    assert one.shape == (8, 8, 1)
    np.testing.assert_allclose(one[..., 0], colour @ [0.299, 0.587, 0.114], atol=0.51)  # ITU-R BT.601, rounded
    assert with_channels(grey, 1) is grey


@settings(deadline=None, max_examples=80)
@given(st.integers(1, 70), st.integers(1, 70), st.integers(1, 40), st.integers(1, 40), st.data())
def test_every_image_gets_the_size_and_the_channels(H: int, W: int, h: int, w: int, data: st.DataObject) -> None:
    resize = data.draw(st.sampled_from(["squash", "crop", "pad"]))
    preprocess = Preprocess((h, w), resize, crop_fraction=data.draw(st.floats(0.3, 1)))
    sample, geometry = preprocess.apply(Sample(picture(H, W, data.draw(st.sampled_from([1, 3]))), "x"))
    assert sample.image.shape == (h, w, 3)
    assert sample.image.dtype == np.uint8
    assert (geometry.source, geometry.size) == ((H, W), (h, w))
    corners = geometry.apply([[0, 0], [W, H]])
    if resize != "pad":  # the image covers the whole frame
        assert (corners[0] <= 1e-9).all()
        assert (corners[1] >= np.array([w, h]) - 1e-9).all()
    if resize == "pad" or (resize, preprocess.crop_fraction) == ("squash", 1.0):  # all of the image is inside
        assert (corners[0] >= -1e-9).all()
        assert (corners[1] <= np.array([w, h]) + 1e-9).all()


# ---- targets, there and back ----


@st.composite
def enlarging(draw: st.DrawFn) -> tuple[Preprocess, tuple[int, int]]:
    """A preprocessing and a size of image that it does not shrink, so that no mask pixel can be lost."""
    H, W = draw(st.integers(5, 30)), draw(st.integers(5, 30))
    side = draw(st.integers(30, 50))
    resize = draw(st.sampled_from(["squash", "crop", "pad"]))
    return Preprocess((side, side), resize, crop_fraction=draw(st.floats(0.5, 1))), (H, W)


@settings(deadline=None, max_examples=60)
@given(enlarging(), st.integers(0, 2**31))
def test_points_boxes_and_masks_come_back_to_the_original_image(
    case: tuple[Preprocess, tuple[int, int]], seed: int
) -> None:
    preprocess, (H, W) = case
    rng = np.random.default_rng(seed)
    masks = rng.random((2, H, W)) < 0.5
    points = np.concatenate([rng.uniform(0, [W, H], (2, 3, 2)), np.ones((2, 3, 1))], axis=-1).astype(np.float32)
    low = rng.uniform(0, [W / 2, H / 2], (2, 2))
    boxes = np.concatenate([low, low + rng.uniform(1, [W / 2, H / 2], (2, 2))], axis=1).astype(np.float32)
    sample = Sample(picture(H, W), "x", masks=Masks(masks, np.arange(2)), semantic=SemanticMap(masks[0].astype("u1")))
    moved, geometry = preprocess.apply(sample)
    back = geometry.inverse

    seen = np.zeros((H, W), bool)  # pixels of the original that lie whole inside the model's frame
    (x0, y0), (x1, y1) = back.apply([[0, 0], preprocess.size[::-1]])
    seen[max(0, int(np.ceil(y0))) : int(y1 + 1e-9), max(0, int(np.ceil(x0))) : int(x1 + 1e-9)] = True
    there = move_masks(masks, geometry)
    np.testing.assert_array_equal(move_masks(there, back) & seen, masks & seen)
    assert moved.semantic is not None
    np.testing.assert_array_equal((moved.semantic.classes == 1), there[0])

    visible = move_points(points, geometry)[..., 2] == 1
    returned = move_points(move_points(points, geometry), back)
    np.testing.assert_allclose(returned[visible][:, :2], points[visible][:, :2], atol=1e-3)

    frame = np.array([x0, y0, x1, y1])
    clipped = np.concatenate([np.maximum(boxes[:, :2], frame[:2]), np.minimum(boxes[:, 2:], frame[2:])], axis=1)
    overlapping = (clipped[:, 2:] > clipped[:, :2]).all(axis=1)
    np.testing.assert_allclose(
        move_boxes(move_boxes(boxes, geometry), back)[overlapping], clipped[overlapping], atol=1e-3
    )


def test_apply_moves_boxes_and_points() -> None:
    boxes = Boxes(np.array([[10, 10, 30, 50]], np.float32), np.array([2]))
    points = Points(np.array([[[20, 30, 1]]], np.float32))
    moved, _ = Preprocess((30, 30), "pad").apply(Sample(picture(60, 40), "x", boxes=boxes, points=points))
    assert moved.boxes is not None  # half the size, with 5 pixels at the left
    assert moved.boxes.xyxy.tolist() == [[10, 5, 20, 25]]
    assert moved.points is not None
    assert moved.points.xyv.tolist() == [[[15, 15, 1]]]


# ---- tensors ----

IMAGENET = Preprocess((16, 16), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
def test_normalize_is_the_textbook_formula_in_the_same_memory_format(memory: torch.memory_format) -> None:
    images = (
        torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16).repeat(2, 3, 1, 1).contiguous(memory_format=memory)
    )
    result = IMAGENET.normalize(images)
    mean, std = torch.tensor(IMAGENET.mean, dtype=torch.float64), torch.tensor(IMAGENET.std, dtype=torch.float64)
    expected = (images.double() / 255 - mean[:, None, None]) / std[:, None, None]
    assert result.dtype == torch.float32
    assert result.is_contiguous(memory_format=memory)
    torch.testing.assert_close(result.double(), expected, rtol=0, atol=1e-6)
    assert torch.equal(IMAGENET.denormalize(result), images)


def test_denormalize_clips() -> None:
    assert IMAGENET.denormalize(
        torch.tensor([-100.0, 100.0]).reshape(1, 1, 1, 2).repeat(1, 3, 1, 1)
    ).unique().tolist() == [
        0,
        255,
    ]


# ---- settings ----


@pytest.mark.parametrize(
    "preprocess",
    [IMAGENET, Preprocess((8, 9), "pad", 0.9, "nearest", (0.1,), (0.3,), channels=1)],
)
def test_json_gives_back_the_same(preprocess: Preprocess) -> None:
    assert Preprocess.from_json(json.loads(json.dumps(preprocess.to_json()))) == preprocess


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"colour": "RGB"}, "colour"),
        ({"std": None}, "stored preprocessing"),
        ({"std": ["a", "b", "c"]}, "stored preprocessing"),
        ({"mean": [0.5, 0.5, float("nan")]}, "nan"),
        ({"size": 224}, "stored preprocessing"),
        ({"resize": "stretch"}, "stretch"),
        ({"mean": [0.5]}, "mean"),
    ],
)
def test_json_that_does_not_fit_is_a_checkpoint_error(change: dict[str, Any], named: str) -> None:
    with pytest.raises(CheckpointError, match=named):
        Preprocess.from_json({**IMAGENET.to_json(), **change})


def test_json_without_a_setting_is_a_checkpoint_error() -> None:
    data = IMAGENET.to_json()
    del data["mean"]
    with pytest.raises(CheckpointError, match="mean"):
        Preprocess.from_json(data)


@pytest.mark.parametrize(
    "wrong",
    [
        {"size": (0, 5)},
        {"resize": "stretch"},
        {"crop_fraction": 0.0},
        {"crop_fraction": 1.5},
        {"interpolation": "lanczos"},
        {"channels": 4},
        {"channels": 1},
        {"std": (0.5, 0.0, 0.5)},
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(SettingError):
        Preprocess(**{"size": (8, 8), **wrong})
