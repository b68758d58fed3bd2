"""Colours change as their definitions say, as often as they should, and by nothing but the generator."""

import colorsys
from dataclasses import replace

import numpy as np
import pytest

from vitrail.data.augment import Augment, augment
from vitrail.data.colour import JITTERS, Colour, jittered, recolour, turned
from vitrail.data.geometry import from_pillow, to_pillow
from vitrail.data.preprocess import Preprocess
from vitrail.data.rng import generator
from vitrail.data.sample import Sample
from vitrail.errors import SettingError

EVERYTHING = Colour(0.4, 0.4, 0.2, 0.1, jitter=0.8, grey=0.2, blur=0.5, solarize=0.2)


def picture(side=24, channels=3, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (side, side, channels), dtype=np.uint8)


def variants(image, settings, count):
    return np.stack([recolour(image, settings, generator(1, "augment", 0, i)) for i in range(count)])


def test_the_defaults_do_nothing():
    image = picture()
    assert (variants(image, Colour(), 20) == image).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_it_is_a_pure_function_of_the_generator_which_is_used_alike_for_every_image(channels):
    image = picture(channels=channels)
    first, again = variants(image, EVERYTHING, 30), variants(image, EVERYTHING, 30)
    np.testing.assert_array_equal(first, again)
    assert first.shape == (30, 24, 24, channels)
    assert len(np.unique(first.reshape(30, -1), axis=0)) > 20
    np.testing.assert_array_equal(image, picture(channels=channels))  # which is left alone
    after = []
    for each in (image, np.zeros((3, 50, 3), np.uint8)):
        rng = np.random.default_rng(4)
        recolour(each, EVERYTHING, rng)
        after.append(rng.random())
    assert after[0] == after[1]


@pytest.mark.parametrize(
    "settings",
    [
        Colour(brightness=0.5, jitter=0.3),
        Colour(grey=0.3),
        Colour(blur=0.3, radius=(1, 2)),
        Colour(solarize=0.3),
        Colour(hue=0.5, jitter=0.3),
    ],
)
def test_each_change_has_its_probability(settings):
    image = picture()
    changed = (variants(image, settings, 400) != image).any(axis=(1, 2, 3))
    assert changed.mean() == pytest.approx(0.3, abs=0.07)


def test_brightness_covers_its_range_evenly():
    image = np.full((4, 4, 3), 100, np.uint8)
    values = variants(image, Colour(brightness=0.6), 600)[:, 0, 0, 0].astype(int)
    assert values.min() == pytest.approx(40, abs=2)
    assert values.max() == pytest.approx(160, abs=2)
    assert values.std() == pytest.approx(60 / np.sqrt(3), abs=3)  # of a uniform number


def test_a_change_by_more_than_all_is_black():
    assert (from_pillow(jittered(to_pillow(picture()), "brightness", -1.5)) == 0).all()


@pytest.mark.parametrize("part", [-0.5, -0.1, 0.25, 0.5])
def test_the_hue_is_turned_and_nothing_else(part):
    image = picture(8)
    result = from_pillow(turned(to_pillow(image), part))
    for before, after in zip(image.reshape(-1, 3) / 255, result.reshape(-1, 3) / 255, strict=True):
        h, s, v = colorsys.rgb_to_hsv(*before)
        np.testing.assert_allclose(after, colorsys.hsv_to_rgb((h + part) % 1, s, v), atol=0.05)  # Pillow's has 8 bits


def test_a_grey_image_has_neither_hue_nor_saturation():
    image = picture(channels=1)
    for kind in ("hue", "saturation"):
        np.testing.assert_array_equal(from_pillow(jittered(to_pillow(image), kind, 0.4)), image)


def test_the_four_jitters_come_in_every_order(monkeypatch):
    seen, order = set(), []
    monkeypatch.setattr("vitrail.data.colour.jittered", lambda picture, kind, amount: order.append(kind) or picture)
    for i in range(300):
        order.clear()
        monkeypatch.setattr(
            "vitrail.data.colour.jittered", lambda picture, kind, amount, o=order: (o.append(kind), picture)[1]
        )
        recolour(picture(2), replace(EVERYTHING, jitter=1.0), generator(0, "augment", 0, i))
        seen.add(tuple(order))
    assert len(seen) == 24
    assert all(set(order) == set(JITTERS) for order in seen)


def test_grey_keeps_the_luma_and_three_channels():
    image = picture()
    (result,) = variants(image, Colour(grey=1.0), 1)
    luma = image @ np.array([0.299, 0.587, 0.114])
    np.testing.assert_allclose(result, np.repeat(luma[..., None], 3, axis=2), atol=1)


def test_solarisation_inverts_the_brighter_half():
    image = picture()
    (result,) = variants(image, Colour(solarize=1.0), 1)
    np.testing.assert_array_equal(result, np.where(image < 128, image, 255 - image))


def test_blur_is_a_gaussian_of_its_radius():
    image = np.zeros((41, 41, 1), np.uint8)
    image[20, 20] = 255
    wide = np.zeros_like(image)
    wide[15:26, 15:26] = 255  # a square, whose blur has values that eight bits can tell apart
    (result,) = variants(wide, Colour(blur=1.0, radius=(3, 3)), 1)
    x = np.arange(41) - 20
    kernel = np.exp(-(x**2) / 18)
    kernel /= kernel.sum()
    line = np.convolve(wide[20, :, 0], kernel, mode="same") / 255
    expected = 255 * line[:, None] * line[None]
    np.testing.assert_allclose(result[..., 0], expected, atol=6)  # Pillow approximates it by box blurs


@pytest.mark.parametrize(
    "wrong",
    [
        {"jitter": 1.1},
        {"grey": -0.1},
        {"blur": 2},
        {"solarize": float("nan")},
        {"brightness": -1},
        {"contrast": float("inf")},
        {"hue": 0.6},
        {"radius": (2.0, 1.0)},
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong):
    with pytest.raises(SettingError, match=next(iter(wrong))):
        Colour(**wrong)


# ---- in augment ----


def coordinates(side):
    """An image whose first two channels tell the column and the row of each pixel."""
    y, x = np.mgrid[:side, :side]
    return np.stack([x, y, np.zeros_like(x)], axis=-1).astype(np.uint8)


def crops(settings, count=200, side=32):
    preprocess = Preprocess((side, side), interpolation="nearest")
    sample = Sample(coordinates(side), "x")
    return np.stack([augment(sample, settings, preprocess, generator(3, "augment", 0, i)).image for i in range(count)])


def test_tiny_images_are_cropped_where_that_is_asked_for():
    results = crops(Augment((0.1, 0.5), (1.0, 1.0), crop_tiny=True))
    sides = np.ptp(results[..., 0], axis=(1, 2)) + 1.0
    assert sides.min() == pytest.approx(32 * np.sqrt(0.1), abs=2)
    assert sides.max() == pytest.approx(32 * np.sqrt(0.5), abs=2)
    assert results[..., :2].min() == 0
    assert results[..., :2].max() == 31


def test_no_draw_comes_after_those_of_an_augmentation_without_colour():
    """Settings without colour give what they always gave: they take nothing more from the generator."""
    sample, preprocess = Sample(picture(80), "x"), Preprocess((32, 32))
    one, two = np.random.default_rng(0), np.random.default_rng(0)
    settings = Augment((0.3, 1.0), flip=0.5, jitter=0.2)
    plain = augment(sample, settings, preprocess, one).image
    coloured = augment(sample, replace(settings, colour=Colour()), preprocess, two).image
    np.testing.assert_array_equal(plain, coloured)  # colour's own draws come after crop, flip and jitter
    assert one.random() != two.random()


def test_colours_change_after_the_crop():
    settings = Augment((0.3, 1.0), crop_tiny=True, colour=Colour(solarize=1.0))
    plain = crops(replace(settings, colour=None), 10)
    np.testing.assert_array_equal(crops(settings, 10), np.where(plain < 128, plain, 255 - plain))
