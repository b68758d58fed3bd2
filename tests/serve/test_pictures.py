"""Heat maps as pictures: the colours and the mixture that `explain` draws with."""

from __future__ import annotations

import io

import matplotlib as mpl
import numpy as np
from PIL import Image

from vitrail.explain.draw import HEAT, VEIL
from vitrail.serve.pictures import heat_png, overlay_png, png


def opened(data):
    return np.asarray(Image.open(io.BytesIO(data)))


def test_an_image_comes_back_as_it_was():
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    np.testing.assert_array_equal(opened(png(image)), image)
    np.testing.assert_array_equal(opened(png(image[..., :1])), image[..., 0])


def test_heat_has_the_colours_of_the_map_and_is_clear_where_there_is_none():
    heat = np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4)
    rgba = opened(heat_png(heat))
    expected = np.array([[mpl.colormaps[HEAT](float(value)) for value in row] for row in heat])
    np.testing.assert_allclose(rgba[..., :3] / 255, expected[..., :3], atol=0.0045)
    np.testing.assert_allclose(rgba[..., 3] / 255, heat, atol=0.002)


def test_the_overlay_is_the_grey_image_under_a_veil_of_heat():
    image = np.random.default_rng(0).integers(0, 256, (8, 6, 3), dtype=np.uint8)
    veil = {value: np.array(mpl.colormaps[HEAT](float(value))[:3]) for value in (0, 1)}
    for value in (0, 1):
        over = opened(overlay_png(image, np.full((4, 3), value, np.float32))) / 255
        grey = (image.mean(axis=2, keepdims=True) / 255 + 0.2) / 1.4
        np.testing.assert_allclose(over, (1 - VEIL) * grey + VEIL * veil[value], atol=0.005)


def test_the_map_is_resized_to_the_image():
    heat = np.zeros((2, 2), np.float32)
    heat[0, 1] = 1
    over = opened(overlay_png(np.full((20, 40, 1), 128, np.uint8), heat)).astype(int)
    assert over.shape == (20, 40, 3)
    assert over[1, 38].sum() > over[1, 1].sum() + 200
    assert over[18, 38].sum() == over[1, 1].sum()
