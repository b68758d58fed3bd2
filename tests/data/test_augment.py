from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as PillowImage
from PIL import ImageEnhance

from vitrail.data import augment as module
from vitrail.data.augment import COLOUR, GEOMETRIC, OPERATIONS, PRESETS, Augment, augment
from vitrail.data.geometry import from_pillow, to_pillow
from vitrail.data.preprocess import Preprocess
from vitrail.data.rng import generator
from vitrail.data.sample import Boxes, Label, Masks, Points, Sample, SemanticMap
from vitrail.errors import SettingError

GREY = {"mean": (0.5,), "std": (0.5,), "channels": 1}


def picture(height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def variants(image: np.ndarray, augmentation: Augment, preprocess: Preprocess, count: int) -> np.ndarray:
    sample = Sample(image, "x")
    return np.stack(
        [augment(sample, augmentation, preprocess, generator(5, "augment", 0, i)).image for i in range(count)]
    )


# ---- presets ----


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 90), st.integers(1, 90), st.sampled_from([1, 3]), st.sampled_from(["squash", "crop", "pad"]))
def test_none_is_the_plain_preprocessing(height: int, width: int, channels: int, resize: Any) -> None:
    sample = Sample(picture(height, width, channels), "x", label=Label(1))
    preprocess = Preprocess((24, 20), resize, crop_fraction=0.9)
    result = augment(sample, PRESETS["none"], preprocess, np.random.default_rng(0))
    np.testing.assert_array_equal(result.image, preprocess.apply(sample)[0].image)
    assert result.label == Label(1)


@pytest.mark.parametrize("preset", ["light", "strong"])
@pytest.mark.parametrize("shape", [(8, 8, 1), (28, 28, 1), (32, 32, 3), (200, 90, 3), (70, 70, 1)])
@pytest.mark.parametrize("channels", [1, 3])
def test_presets_give_the_size_and_are_a_pure_function_of_the_generator(
    preset: str, shape: tuple[int, int, int], channels: Any
) -> None:
    preprocess = Preprocess((16, 24), mean=(0.5,) * channels, std=(0.5,) * channels, channels=channels)
    image = picture(*shape)
    first, again = (variants(image, PRESETS[preset], preprocess, 30) for _ in range(2))
    assert first.shape == (30, 16, 24, channels)
    assert first.dtype == np.uint8
    np.testing.assert_array_equal(first, again)
    assert len(np.unique(first.reshape(30, -1), axis=0)) > 15
    np.testing.assert_array_equal(image, picture(*shape))  # the source is left alone


def test_what_is_drawn_does_not_depend_on_the_pixels() -> None:
    draws = []
    for image in (picture(80, 80, seed=1), np.zeros((80, 80, 3), np.uint8)):
        rng = np.random.default_rng(4)
        augment(Sample(image, "x"), PRESETS["strong"], Preprocess((32, 32)), rng)
        draws.append(rng.random())
    assert draws[0] == draws[1]


# ---- crop and flip ----


def coordinates(height: int, width: int) -> np.ndarray:
    """An image whose first two channels tell the column and the row of each pixel."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x, y, np.zeros_like(x)], axis=-1).astype(np.uint8)


@pytest.mark.parametrize(("height", "width"), [(250, 250), (100, 250), (250, 80)])
def test_crops_keep_their_share_of_the_area_their_proportions_and_reach_everywhere(height: int, width: int) -> None:
    scale, ratio = (0.2, 0.5), (0.8, 1.25)
    crops = variants(
        coordinates(height, width), Augment(scale, ratio), Preprocess((100, 200), interpolation="nearest"), 300
    )
    x0, x1 = crops[..., 0].min(axis=(1, 2)).astype(float), crops[..., 0].max(axis=(1, 2)) + 1.0
    y0, y1 = crops[..., 1].min(axis=(1, 2)).astype(float), crops[..., 1].max(axis=(1, 2)) + 1.0
    w, h = x1 - x0, y1 - y0  # each may read one pixel more than the box has
    assert (w / h).min() > 2 * ratio[0] * 0.9  # the result is twice as wide as high
    assert (w / h).max() < 2 * ratio[1] * 1.1
    assert (w * h).max() < scale[1] * height * width * 1.1
    if height == width:  # elsewhere the largest crop of these proportions may be smaller
        assert (w * h).min() > scale[0] * height * width * 0.9
        assert ((w + 2) * (h + 2)).max() > 0.45 * height * width
    assert x0.min() < 0.05 * width
    assert y0.min() < 0.05 * height
    assert x1.max() > 0.95 * width
    assert y1.max() > 0.95 * height


def test_the_larger_part_of_an_image_can_be_kept_whole() -> None:
    crop = variants(coordinates(90, 120), Augment((1.0, 1.0), (1.0, 1.0)), Preprocess((90, 90)), 1)[0]
    assert int(np.ptp(crop[..., 1])) == 89  # the full height: the largest square
    assert int(np.ptp(crop[..., 0])) == 89


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_an_image_is_reduced_only_as_far_as_every_crop_has_the_pixels(data: st.DataObject) -> None:
    source = data.draw(st.tuples(st.integers(64, 5000), st.integers(64, 5000)))
    size = data.draw(st.tuples(st.integers(8, 400), st.integers(8, 400)))
    smallest, ratio = data.draw(st.floats(0.05, 1)), sorted(data.draw(st.tuples(st.floats(0.5, 2), st.floats(0.5, 2))))
    reduction = module.reduction_for(source, size, smallest, tuple(ratio))
    rng, spare = np.random.default_rng(0), []
    for _ in range(50):
        x0, y0, x1, y1 = module._draw_crop(source, size, (smallest, 1.0), tuple(ratio), rng)
        spare.append(min((x1 - x0) / size[1], (y1 - y0) / size[0]))
    assert reduction == 1 or min(spare) >= reduction * (1 - 1e-9)
    assert reduction in (1, 2, 4, 8)


def test_crops_of_a_reduced_image_are_those_of_the_image() -> None:
    """Of a large, smooth image both are the same picture but for what was averaged; its boxes stay where they were."""
    y, x = np.mgrid[:600, :800] / 800
    image = (255 * np.stack([x, y, (x + y) / 2], axis=-1)).astype(np.uint8)
    sample = Sample(image, "x", boxes=Boxes(np.array([[200, 100, 600, 500]], np.float32), np.array([0])))
    settings, preprocess = Augment(crop_scale=(0.3, 1.0)), Preprocess((50, 40), interpolation="bilinear")
    assert module.reduction_for((600, 800), preprocess.size, 0.3, settings.crop_ratio) == 4
    for number in range(20):
        found = augment(sample, settings, preprocess, generator(5, "augment", 0, number))
        rng = generator(5, "augment", 0, number)
        box = module._draw_crop((600, 800), preprocess.size, (0.3, 1.0), settings.crop_ratio, rng)
        x0, y0, x1, y1 = (round(side) for side in box)
        direct = PillowImage.fromarray(image).resize((40, 50), PillowImage.Resampling.BILINEAR, box=(x0, y0, x1, y1))
        np.testing.assert_allclose(found.image.astype(int), np.asarray(direct), atol=4)  # two pixels of 800 to a side
        assert found.boxes is not None
        expected = (np.array([[200, 100, 600, 500]]) - [x0, y0, x0, y0]) * np.tile([40 / (x1 - x0), 50 / (y1 - y0)], 2)
        np.testing.assert_allclose(found.boxes.xyxy, expected.clip(0, [40, 50, 40, 50]), atol=0.7)


def test_half_of_the_images_are_mirrored() -> None:
    image = picture(70, 70)
    results = variants(image, Augment(flip=0.5), Preprocess((70, 70)), 400)
    mirrored = (results == image[:, ::-1]).all(axis=(1, 2, 3))
    assert (mirrored | (results == image).all(axis=(1, 2, 3))).all()
    assert mirrored.mean() == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("side", [8, 28])
def test_tiny_grey_images_are_shifted_by_up_to_an_eighth_and_nothing_else(side: int) -> None:
    image = np.zeros((side, side, 1), np.uint8)
    image[side // 4 : -side // 4, side // 4 : -side // 4] = picture(side // 2, side // 2, 1)
    preset = replace(PRESETS["light"], jitter=0.0)
    reach = side // 8
    shifts = {
        np.roll(image, (y, x), (0, 1)).tobytes(): (y, x)
        for y in range(-reach, reach + 1)
        for x in range(-reach, reach + 1)
    }
    seen = [shifts[result.tobytes()] for result in variants(image, preset, Preprocess((side, side), **GREY), 600)]
    assert set(seen) == set(shifts.values())


def test_tiny_colour_images_are_mirrored_too() -> None:
    image = np.zeros((32, 32, 3), np.uint8)
    image[8:24, 8:24] = picture(16, 16)
    results = variants(image, Augment((0.3, 1.0), flip=0.5), Preprocess((32, 32)), 300)
    mirrored = sum((np.roll(image[:, ::-1], s, (0, 1)) == result).all() for result in results for s in SHIFTS)
    straight = sum((np.roll(image, s, (0, 1)) == result).all() for result in results for s in SHIFTS)
    assert mirrored + straight == 300
    assert mirrored == pytest.approx(150, abs=35)


SHIFTS = [(y, x) for y in range(-4, 5) for x in range(-4, 5)]


def test_what_comes_into_view_has_the_colour_of_the_border() -> None:
    image = np.full((32, 32, 3), (10, 20, 30), np.uint8)
    image[12:20, 12:20] = 200
    colours = variants(image, Augment((0.3, 1.0)), Preprocess((32, 32)), 20).reshape(-1, 3)
    assert {tuple(colour) for colour in colours.tolist()} == {(10, 20, 30), (200, 200, 200)}


# ---- targets ----


def near_an_edge(mask: np.ndarray) -> np.ndarray:
    """Pixels within two of a change from inside to outside."""
    padded = np.pad(mask, 2, mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (5, 5))
    return windows.any(axis=(2, 3)) & ~windows.all(axis=(2, 3))


@pytest.mark.parametrize("size", [(96, 80), (40, 60)])
def test_every_target_moves_with_the_pixels(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "OPERATIONS", tuple(GEOMETRIC))
    image = np.zeros((96, 112, 3), np.uint8)
    boxes = np.array([[20, 16, 60, 50], [64, 52, 104, 84]], np.float32)
    masks = np.zeros((2, 96, 112), bool)
    for channel, (x0, y0, x1, y1) in enumerate(boxes.astype(int)):
        masks[channel, y0:y1, x0:x1] = True
        image[..., channel] = 255 * masks[channel]
    sample = Sample(
        image,
        "x",
        boxes=Boxes(boxes, np.array([0, 1])),
        masks=Masks(masks, np.array([0, 1])),
        semantic=SemanticMap((masks[0] + 2 * masks[1]).astype(np.uint8)),
        points=Points(np.array([[[40, 33, 1]], [[84, 68, 1]]], np.float32)),
    )
    settings = Augment((0.4, 1.0), flip=0.5, randaugment=3)
    instances = 0
    for i in range(60):
        moved = augment(sample, settings, Preprocess(size), generator(2, "augment", 0, i))
        assert moved.boxes is not None
        assert moved.masks is not None
        assert moved.points is not None
        assert moved.semantic is not None
        assert len(moved.boxes.xyxy) == len(moved.masks.masks) == len(moved.points.xyv)
        np.testing.assert_array_equal(moved.boxes.classes, moved.masks.classes)
        for box, mask, point, channel in zip(
            moved.boxes.xyxy, moved.masks.masks, moved.points.xyv[:, 0], moved.boxes.classes, strict=True
        ):
            instances += 1
            sure = ~near_an_edge(mask)
            sure[[0, 1, -2, -1]] = sure[:, [0, 1, -2, -1]] = False  # where fill and interpolation meet
            np.testing.assert_array_equal((moved.image[..., channel] > 127)[sure], mask[sure])
            np.testing.assert_array_equal((moved.semantic.classes == channel + 1)[sure], mask[sure])
            rows, columns = np.nonzero(mask)
            if len(rows):
                assert box[0] - 1 <= columns.min()
                assert columns.max() + 1 <= box[2] + 1
                assert box[1] - 1 <= rows.min()
                assert rows.max() + 1 <= box[3] + 1
            if point[2]:
                assert mask[int(point[1]), int(point[0])]
    assert instances > 60


# ---- colour ----


def test_jitter_changes_a_constant_image_by_brightness_alone() -> None:
    image = np.full((70, 70, 1), 100, np.uint8)
    values = variants(image, Augment(jitter=0.3), Preprocess((70, 70), **GREY), 300)[:, 0, 0, 0].astype(int)
    assert values.min() == pytest.approx(70, abs=3)
    assert values.max() == pytest.approx(130, abs=3)
    assert values.mean() == pytest.approx(100, abs=4)


def test_jitter_changes_contrast_and_saturation() -> None:
    image = np.zeros((64, 64, 3), np.uint8)
    image[:, :32], image[:, 32:] = (120, 80, 80), (80, 80, 120)
    results = variants(image, Augment(jitter=0.5), Preprocess((64, 64)), 100).astype(int)
    left = results[:, 0, 0]
    saturation = (left.max(axis=1) - left.min(axis=1)) / left.max(axis=1)
    assert saturation.min() < 0.25 < 0.4 < saturation.max()  # 1/3 before
    np.testing.assert_array_equal(results[:, 0, 0, 1], results[:, 0, 0, 2])  # the hue stays


def test_jitter_is_pillows_but_for_its_rounding_in_between() -> None:
    image = np.asarray(PillowImage.fromarray(picture(9, 9)).resize((64, 64))).clip(60, 190)  # nothing is cut off
    for factors in ((1.1, 0.8, 1.2), (0.7, 1.3, 0.6), (1.2, 1.0, 0.0)):
        expected = PillowImage.fromarray(image)
        for kind, factor in zip(
            (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color), factors, strict=True
        ):
            expected = kind(expected).enhance(factor)
        np.testing.assert_allclose(module.jittered(image, *factors).astype(int), np.asarray(expected), atol=3)


RAMP = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)


def applied(operation: str, magnitude: float, image: np.ndarray = RAMP) -> np.ndarray:
    return from_pillow(COLOUR[operation](to_pillow(image), magnitude)).astype(int)


def test_colour_operations_by_their_definitions() -> None:
    ramp = RAMP.astype(int)
    np.testing.assert_array_equal(applied("invert", 0.9), 255 - ramp)
    np.testing.assert_array_equal(applied("posterize", 0.5), ramp & 0b11000000)
    np.testing.assert_array_equal(applied("posterize", 1.0), ramp & 0b10000000)
    np.testing.assert_array_equal(applied("solarize", -0.5), np.where(ramp < 128, ramp, 255 - ramp))
    np.testing.assert_array_equal(applied("solarize_add", 1.0), np.where(ramp < 128, np.minimum(ramp + 110, 255), ramp))
    for sign in (-1, 1):
        factor = 1 + 0.9 * sign
        np.testing.assert_allclose(applied("brightness", sign), np.clip(ramp * factor, 0, 255), atol=1)
        np.testing.assert_allclose(applied("contrast", sign), np.clip(128 + (ramp - 128) * factor, 0, 255), atol=1)
        np.testing.assert_array_equal(applied("saturation", sign), ramp)  # grey has none
    narrow = (RAMP // 4 + 100).astype(np.uint8)
    np.testing.assert_allclose(applied("autocontrast", 0.5, narrow), (narrow.astype(int) - 100) * 255 / 63, atol=1)
    two = np.array([[[10], [10]], [[10], [20]]], np.uint8)
    assert len(np.unique(applied("equalize", 0.5, two))) == 2


def test_saturation_moves_colours_to_and_from_their_grey() -> None:
    colour = np.full((2, 2, 3), (200, 100, 50), np.uint8)
    grey = 0.299 * 200 + 0.587 * 100 + 0.114 * 50
    for magnitude in (-1.0, -0.5, 0.5):
        expected = np.clip(grey + (np.array([200, 100, 50]) - grey) * (1 + 0.9 * magnitude), 0, 255)
        np.testing.assert_allclose(applied("saturation", magnitude, colour)[0, 0], expected, atol=1.5)


def test_geometric_operations_by_their_definitions() -> None:
    size = (100, 200)  # the centre is x = 100, y = 50
    corner = GEOMETRIC["rotate"](size, 1.0).apply([[100, 0]])[0]
    np.testing.assert_allclose(corner, [100 + 50 * np.sin(np.pi / 6), 50 - 50 * np.cos(np.pi / 6)])
    np.testing.assert_allclose(GEOMETRIC["shear_x"](size, -1.0).apply([[100, 60]]), [[97, 60]])
    np.testing.assert_allclose(GEOMETRIC["shear_y"](size, 0.5).apply([[120, 50]]), [[120, 53]])
    np.testing.assert_allclose(GEOMETRIC["translate_x"](size, 0.5).apply([[0, 0]]), [[45, 0]])
    np.testing.assert_allclose(GEOMETRIC["translate_y"](size, -0.5).apply([[0, 0]]), [[0, -22.5]])


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("channels", [1, 3])
def test_each_operation_takes_place_every_other_time(
    operation: str, channels: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "OPERATIONS", (operation,))
    image = np.asarray(PillowImage.fromarray(picture(9, 9, 3)).resize((64, 64)))[..., :channels].clip(30, 200)
    preprocess = Preprocess((64, 64), mean=(0.5,) * channels, std=(0.5,) * channels, channels=channels)
    changed = (variants(image, Augment(randaugment=1), preprocess, 100) != image).any(axis=(1, 2, 3))
    expected = 0.0 if (operation, channels) == ("saturation", 1) else 0.5
    assert changed.mean() == pytest.approx(expected, abs=0.17)


def test_tiny_images_are_not_translated_away() -> None:
    image = np.zeros((16, 16, 1), np.uint8)
    image[5:11, 5:11] = 180
    results = variants(image, Augment(randaugment=1), Preprocess((16, 16), **GREY), 600)
    middle = results[:, 5:11, 5:11, 0].astype(int)
    border = results[:, 0, :, 0].astype(int)
    for inside, outside in zip(middle, border, strict=True):  # however it is coloured, turned or slanted
        assert (np.abs(inside - outside.mean()) > 10).mean() > 0.6


# ---- random erasing ----


@pytest.mark.parametrize("channels", [1, 3])
def test_erasing_fills_one_rectangle_with_noise(channels: Any) -> None:
    preprocess = Preprocess((70, 90), mean=(0.5,) * channels, std=(0.5,) * channels, channels=channels)
    image = np.zeros((70, 90, channels), np.uint8)
    results = variants(image, Augment(erase=0.25), preprocess, 400)
    erased = results.any(axis=(1, 2, 3))
    assert erased.mean() == pytest.approx(0.25, abs=0.07)
    for result in results[erased]:
        rows, columns = np.nonzero(result.any(axis=-1))
        part = result[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        h, w = part.shape[:2]
        assert 0.015 <= h * w / (70 * 90) <= 0.345
        assert 0.25 <= w / h <= 4
        assert part.mean() == pytest.approx(127.5, abs=25)
        assert part.std() == pytest.approx(73.9, abs=15)  # uniform in 0 ... 255


# ---- settings ----


@pytest.mark.parametrize(
    "wrong",
    [
        {"crop_scale": (0.0, 1.0)},
        {"crop_scale": (0.8, 0.5)},
        {"crop_ratio": (-1.0, 1.0)},
        {"flip": 1.5},
        {"jitter": -0.1},
        {"erase": 2.0},
        {"randaugment": -1},
        {"magnitude": 11.0},
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(SettingError):
        Augment(**wrong)
