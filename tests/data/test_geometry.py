from __future__ import annotations

import math
from typing import Any

import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vitrail.data.geometry import (
    Geometry,
    from_pillow,
    mirrored,
    move,
    move_boxes,
    move_masks,
    move_points,
    move_semantic,
    resized,
    to_pillow,
    visible_share,
    warp,
)
from vitrail.data.sample import IGNORE, Boxes, Caption, Label, Masks, Points, Sample, SemanticMap
from vitrail.data.shapes import Shapes


def picture(height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def number(low: float, high: float) -> st.SearchStrategy[float]:
    return st.floats(low, high)


@st.composite
def steps(draw: st.DrawFn, source: tuple[int, int]) -> Geometry:
    """One random change of each kind, in random order, from ``source`` on."""
    kinds = draw(st.permutations(["crop", "flip", "rotate", "shear", "translate"]))
    geometry = Geometry.identity(source)
    for kind in kinds:
        h, w = geometry.size
        if kind == "crop":
            x0, y0 = draw(number(-5, w / 2)), draw(number(-5, h / 2))
            box = (x0, y0, x0 + draw(number(2, w)), y0 + draw(number(2, h)))
            step = Geometry.crop_resize((h, w), box, (draw(st.integers(4, 40)), draw(st.integers(4, 40))))
        elif kind == "flip":
            step = Geometry.flip((h, w))
        elif kind == "rotate":
            step = Geometry.rotate((h, w), draw(number(-180, 180)))
        elif kind == "shear":
            step = Geometry.shear((h, w), draw(number(-0.4, 0.4)), draw(number(-0.4, 0.4)))
        else:
            step = Geometry.translate((h, w), draw(number(-9, 9)), draw(number(-9, 9)))
        geometry = geometry.then(step)
    return geometry


# ---- matrices ----


def test_crop_resize_takes_the_corners_of_the_box_to_the_corners_of_the_result() -> None:
    geometry = Geometry.crop_resize((50, 80), (10, 20, 30, 50), (60, 100))
    np.testing.assert_allclose(
        geometry.apply([[10, 20], [30, 50], [20, 35]]), [[0, 0], [100, 60], [50, 30]], atol=1e-12
    )


def test_place_scales_the_whole_image_and_moves_its_corner() -> None:
    geometry = Geometry.place((50, 80), (100, 40), (7, -3), (90, 30))
    np.testing.assert_allclose(geometry.apply([[0, 0], [80, 50]]), [[-3, 7], [37, 107]])


def test_flip_translate_rotate_and_shear_by_hand() -> None:
    size = (20, 40)  # the centre is x = 20, y = 10
    np.testing.assert_allclose(Geometry.flip(size).apply([[0, 3], [40, 3]]), [[40, 3], [0, 3]])
    np.testing.assert_allclose(Geometry.translate(size, 2, -5).apply([[1, 1]]), [[3, -4]])
    np.testing.assert_allclose(Geometry.rotate(size, 90).apply([[20, 10], [20, 0]]), [[20, 10], [30, 10]], atol=1e-12)
    np.testing.assert_allclose(Geometry.shear(size, 0.5, 0).apply([[20, 10], [20, 14]]), [[20, 10], [22, 14]])
    np.testing.assert_allclose(Geometry.shear(size, 0, 0.5).apply([[20, 10], [24, 10]]), [[20, 10], [24, 12]])


@settings(deadline=None, max_examples=50)
@given(steps((30, 20)), st.data())
def test_then_is_one_after_the_other_and_inverse_undoes_both(first: Geometry, data: st.DataObject) -> None:
    second = data.draw(steps(first.size))
    xy = np.array([[0.0, 0.0], [20, 30], [7.5, 11.25]])
    both = first.then(second)
    assert (both.source, both.size) == (first.source, second.size)
    np.testing.assert_allclose(both.apply(xy), second.apply(first.apply(xy)), rtol=1e-9, atol=1e-7)
    assert (both.inverse.source, both.inverse.size) == (both.size, both.source)
    np.testing.assert_allclose(both.inverse.apply(both.apply(xy)), xy, atol=1e-5)


def test_then_refuses_frames_that_do_not_meet() -> None:
    with pytest.raises(ValueError, match="ends at"):
        Geometry.identity((4, 4)).then(Geometry.flip((4, 5)))


# ---- the image ----


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic"])
@pytest.mark.parametrize("channels", [1, 3])
def test_warp_of_a_crop_is_pillows_resize_of_that_box(interpolation: str, channels: int) -> None:
    image = picture(57, 83, channels)
    box = (10.25, 4.5, 71.0, 50.75)
    expected = to_pillow(image).resize((32, 24), PIL.Image.Resampling[interpolation.upper()], box=box)
    warped = warp(image, Geometry.crop_resize((57, 83), box, (24, 32)), interpolation, (0,) * channels)
    np.testing.assert_array_equal(warped, from_pillow(expected))


def test_warp_of_a_mirrored_crop_is_the_crop_mirrored() -> None:
    image, crop = picture(40, 40), Geometry.crop_resize((40, 40), (3, 5, 30, 37), (16, 24))
    mirrored = warp(image, crop.then(Geometry.flip((16, 24))), "bilinear", (0, 0, 0))
    np.testing.assert_array_equal(mirrored, warp(image, crop, "bilinear", (0, 0, 0))[:, ::-1])


@given(st.integers(-12, 12), st.integers(-12, 12), st.sampled_from(["nearest", "bilinear", "bicubic"]))
@settings(deadline=None, max_examples=40)
def test_warp_by_whole_pixels_moves_them_unchanged(x: int, y: int, interpolation: str) -> None:
    image = picture(9, 11)
    expected = np.full_like(image, (1, 2, 3))
    for row in range(9):
        for column in range(11):
            if 0 <= row + y < 9 and 0 <= column + x < 11:
                expected[row + y, column + x] = image[row, column]
    np.testing.assert_array_equal(warp(image, Geometry.translate((9, 11), x, y), interpolation, (1, 2, 3)), expected)


def test_warp_pads_with_the_fill_and_resizes_the_rest() -> None:
    image = picture(20, 10, 1)
    warped = warp(image, Geometry.place((20, 10), (10, 5), (3, 4), (16, 12)), "bilinear", (77,))
    inner = from_pillow(to_pillow(image).resize((5, 10), PIL.Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(warped, np.pad(inner, ((3, 3), (4, 3), (0, 0)), constant_values=77))


def test_warp_by_a_quarter_turn_is_rot90() -> None:
    image = picture(12, 12)
    np.testing.assert_array_equal(
        warp(image, Geometry.rotate((12, 12), 90), "nearest", (0, 0, 0)), np.rot90(image, k=-1)
    )


@pytest.mark.parametrize("degrees", [11.3, -37.9, 71.7])
def test_a_warped_image_and_a_moved_semantic_map_agree(degrees: float) -> None:
    """Pillow's nearest against ours; pixels whose centre comes from within 1/100 of an edge may round either way."""
    image = picture(33, 41, 1)
    geometry = Geometry.rotate((33, 41), degrees).then(Geometry.crop_resize((33, 41), (-3, 5, 38, 30), (50, 45)))
    warped = warp(image, geometry, "nearest", (IGNORE,))[..., 0]
    y, x = np.mgrid[:50, :45] + 0.5
    source = geometry.inverse.apply(np.stack([x, y], -1))
    sure = (np.abs(source - np.round(source)) > 0.01).all(-1)
    assert sure.mean() > 0.9
    np.testing.assert_array_equal(move_semantic(image[..., 0], geometry)[sure], warped[sure])


# ---- the targets ----


@settings(deadline=None, max_examples=40)
@given(steps((13, 17)))
def test_masks_are_sampled_at_pixel_centres(geometry: Geometry) -> None:
    masks = np.random.default_rng(1).random((2, 13, 17)) < 0.5
    moved = move_masks(masks, geometry)
    assert moved.shape == (2, *geometry.size)
    inverse = np.linalg.inv(geometry.matrix)
    for row in range(geometry.size[0]):
        for column in range(geometry.size[1]):
            x, y, _ = inverse @ [column + 0.5, row + 0.5, 1]
            if min(abs(x - round(x)), abs(y - round(y))) < 1e-6:
                continue  # on the edge between two pixels
            i, j = math.floor(y), math.floor(x)
            inside = 0 <= i < 13 and 0 <= j < 17
            np.testing.assert_array_equal(moved[:, row, column], masks[:, i, j] if inside else [False, False])


def test_what_comes_from_outside_is_background_and_ignored() -> None:
    geometry = Geometry.translate((2, 3), 1, 0)
    assert move_masks(np.ones((1, 2, 3), bool), geometry).tolist() == [[[False, True, True], [False, True, True]]]
    assert move_semantic(np.full((2, 3), 7, np.uint8), geometry).tolist() == [[IGNORE, 7, 7], [IGNORE, 7, 7]]


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_a_box_moves_as_the_tight_box_of_its_mask(data: st.DataObject) -> None:
    x0, y0 = data.draw(st.integers(0, 18)), data.draw(st.integers(0, 18))
    x1, y1 = data.draw(st.integers(x0 + 1, 20)), data.draw(st.integers(y0 + 1, 20))
    mask = np.zeros((1, 20, 20), bool)
    mask[0, y0:y1, x0:x1] = True
    left, top, factor = data.draw(st.integers(-4, 8)), data.draw(st.integers(-4, 8)), data.draw(st.integers(1, 3))
    crop = Geometry.crop_resize((20, 20), (left, top, left + 12, top + 10), (10 * factor, 12 * factor))
    geometry = crop.then(Geometry.flip(crop.size)) if data.draw(st.booleans()) else crop
    rows, columns = np.nonzero(move_masks(mask, geometry)[0])
    box = move_boxes(np.array([[x0, y0, x1, y1]], np.float32), geometry)[0]
    if len(rows) == 0:
        assert (box[2] - box[0]) * (box[3] - box[1]) == 0
    else:
        np.testing.assert_allclose(box, [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1], atol=1e-4)


def test_a_turned_box_becomes_the_hull_of_its_corners() -> None:
    moved = move_boxes(np.array([[8, 8, 12, 12]], np.float32), Geometry.rotate((20, 20), 45))
    reach = 2 * math.sqrt(2)
    np.testing.assert_allclose(moved, [[10 - reach, 10 - reach, 10 + reach, 10 + reach]], rtol=1e-6)
    assert moved.dtype == np.float32


def test_visible_share_by_hand() -> None:
    boxes = np.array([[0, 0, 10, 10], [-5, 0, 5, 10], [15, 15, 25, 25], [30, 0, 40, 10], [3, 3, 3, 9]], np.float32)
    np.testing.assert_allclose(visible_share(boxes, Geometry.identity((20, 20))), [1, 0.5, 0.25, 0, 0])


def test_points_outside_become_invisible_and_invisible_ones_stay_so() -> None:
    points = np.array([[[1, 1, 1], [9, 1, 1], [1, 9, 1], [2, 2, 0], [0, 0, 1]]], np.float32)
    moved = move_points(points, Geometry.crop_resize((10, 10), (0, 0, 5, 5), (10, 10)))
    assert moved.tolist() == [[[2, 2, 1], [18, 2, 0], [2, 18, 0], [4, 4, 0], [0, 0, 1]]]
    assert moved.dtype == np.float32
    edge = move_points(np.array([[10, 3, 1], [9.99, 3, 1]], np.float32), Geometry.identity((10, 10)))
    assert edge[:, 2].tolist() == [0, 1]  # the right edge is exclusive


@settings(deadline=None, max_examples=40)
@given(steps((40, 30)), st.data())
def test_points_come_back_from_anywhere(geometry: Geometry, data: st.DataObject) -> None:
    h, w = geometry.size
    xy = np.array([[data.draw(number(0, w - 1)), data.draw(number(0, h - 1))] for _ in range(4)])
    there = np.concatenate([geometry.inverse.apply(xy), np.ones((4, 1))], axis=1)  # points that are seen in the result
    back = move_points(move_points(there, geometry), geometry.inverse)
    np.testing.assert_allclose(back[:, :2], there[:, :2], atol=1e-2)


# ---- for training ----


@settings(deadline=None, max_examples=80)
@given(
    st.tuples(st.integers(1, 90), st.integers(1, 90)),
    st.tuples(st.integers(1, 60), st.integers(1, 60)),
    st.sampled_from([1, 3]),
    st.sampled_from(["bilinear", "bicubic", "nearest"]),
)
def test_resized_is_what_pillow_gives_but_for_rounding(
    source: tuple[int, int], size: tuple[int, int], channels: int, interpolation: Any
) -> None:
    image = picture(*source, channels) // 4 + 96  # so that bicubic interpolation stays between black and white
    image.flags.writeable = False
    found = resized(image, size, interpolation)
    resampling = PIL.Image.Resampling[interpolation.upper()]
    expected = from_pillow(to_pillow(image).resize((size[1], size[0]), resampling))
    assert found.flags.c_contiguous
    assert found.flags.writeable
    np.testing.assert_allclose(found.astype(int), expected, atol=0 if interpolation == "nearest" else 2)


@pytest.mark.parametrize("size", [(224, 224), (100, 160), (300, 400)])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_a_picture_that_shrinks_is_within_one_grey_level_of_pillow(size: tuple[int, int], interpolation: Any) -> None:
    image = Shapes(1, size=400).sample(0).image[:300]
    resampling = PIL.Image.Resampling[interpolation.upper()]
    expected = from_pillow(to_pillow(image).resize((size[1], size[0]), resampling))
    np.testing.assert_allclose(resized(image, size, interpolation).astype(int), expected, atol=1)


def test_mirrored_exchanges_left_and_right() -> None:
    for channels in (1, 3):
        image = picture(7, 5, channels)
        np.testing.assert_array_equal(mirrored(image), image[:, ::-1])


# ---- samples ----


def scene() -> Sample:
    """Two instances in a frame of 10 x 10: one at the left and one at the right edge."""
    masks = np.zeros((2, 10, 10), bool)
    masks[0, 2:6, 0:2] = True
    masks[1, 4:8, 6:10] = True
    semantic = np.where(masks[0], 1, np.where(masks[1], 2, 0)).astype(np.uint8)
    return Sample(
        image=picture(10, 10),
        name="scene",
        label=Label(4),
        boxes=Boxes(np.array([[0, 2, 2, 6], [6, 4, 10, 8]], np.float32), np.array([7, 8])),
        masks=Masks(masks, np.array([7, 8])),
        semantic=SemanticMap(semantic),
        points=Points(np.array([[[1, 4, 1]], [[8, 6, 1]]], np.float32)),
        caption=Caption(("two things",)),
    )


def test_move_drops_what_left_the_frame_from_boxes_masks_and_points_alike() -> None:
    sample, image = scene(), picture(10, 4)
    moved = move(sample, image, Geometry.crop_resize((10, 10), (6, 0, 10, 10), (10, 4)))
    assert moved.image is image
    assert (moved.name, moved.label, moved.caption) == (sample.name, sample.label, sample.caption)
    assert moved.boxes is not None
    assert moved.boxes.xyxy.tolist() == [[0, 4, 4, 8]]
    assert moved.boxes.classes.tolist() == [8]
    assert moved.masks is not None
    np.testing.assert_array_equal(moved.masks.masks, sample.masks.masks[1:, :, 6:])  # type: ignore[union-attr]
    assert moved.masks.classes.tolist() == [8]
    assert moved.points is not None
    assert moved.points.xyv.tolist() == [[[2, 6, 1]]]
    assert moved.semantic is not None
    np.testing.assert_array_equal(moved.semantic.classes, sample.semantic.classes[:, 6:])  # type: ignore[union-attr]


@pytest.mark.parametrize(("right", "kept"), [(9.5, 1), (9.7, 0)])
def test_an_instance_stays_while_a_tenth_of_its_box_is_visible(right: float, kept: int) -> None:
    sample = Sample(picture(10, 10), "one", boxes=Boxes(np.array([[6, 0, 10, 10]], np.float32), np.array([0])))
    moved = move(sample, sample.image, Geometry.crop_resize((10, 10), (right, 0, 20, 10), (10, 10)))
    assert moved.boxes is not None
    assert len(moved.boxes.xyxy) == len(moved.boxes.classes) == kept


def test_masks_decide_where_there_are_no_boxes() -> None:
    sample = Sample(picture(10, 10), "masks", masks=scene().masks, points=scene().points)
    moved = move(sample, sample.image, Geometry.crop_resize((10, 10), (0, 0, 4, 10), (30, 12)))
    assert moved.masks is not None
    assert moved.masks.classes.tolist() == [7]
    assert moved.masks.masks.sum() == 8 * 9  # eight pixels, each three times as wide and high
    assert moved.points is not None
    assert moved.points.xyv.tolist() == [[[3, 12, 1]]]


def test_points_alone_are_never_dropped() -> None:
    sample = Sample(picture(10, 10), "points", points=scene().points)
    moved = move(sample, sample.image, Geometry.crop_resize((10, 10), (0, 0, 5, 10), (10, 5)))
    assert moved.points is not None
    assert moved.points.xyv.tolist() == [[[1, 4, 1]], [[8, 6, 0]]]


def test_in_a_mirrored_image_left_points_become_right_points() -> None:
    xyv = np.array([[[2, 3, 1], [1, 3, 1], [6, 3, 0]]], np.float32)  # nose, left eye, right eye
    sample = Sample(np.zeros((4, 8, 3), np.uint8), "face", points=Points(xyv, mirror=(0, 2, 1)))
    flipped = move(sample, sample.image, Geometry.flip((4, 8))).points
    assert flipped is not None
    np.testing.assert_array_equal(flipped.xyv, [[[6, 3, 1], [2, 3, 0], [7, 3, 1]]])
    turned = move(sample, sample.image, Geometry.rotate((4, 8), 90.0)).points
    assert turned is not None
    np.testing.assert_array_equal(
        turned.xyv[..., :2], Geometry.rotate((4, 8), 90.0).apply(xyv[..., :2]).astype(np.float32)
    )
