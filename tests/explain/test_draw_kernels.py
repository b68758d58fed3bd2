"""The picture of a convolution: its panels, its numbers, its formulas."""

import numpy as np
import pytest

from vitrail.explain.draw_kernels import draw_kernel, pool_formula, size_formula
from vitrail.explain.kernels import KERNELS, apply
from vitrail.metrics.draw import save

PICTURE = [[int(digit) for digit in row] for row in ["000000", "012210", "024420", "013310", "012310", "001100"]]


def texts(axes):
    return [text.get_text() for text in axes.texts]


def test_a_tiny_picture_has_its_numbers_in_the_cells(tmp_path):
    figure = draw_kernel(apply(PICTURE, KERNELS["edge-2"], pool=2), "edge-2")
    given, kernel, filtered, pooled = figure.axes
    assert texts(given) == [str(value) for row in PICTURE for value in row]
    assert texts(kernel) == ["0", "1", "0", "1", "−4", "1", "0", "1", "0"]
    assert texts(filtered) == ["0", "−1", "−1", "0", "−2", "−5", "−5", "−2", "2", "−2", "−1", "2", "−1", "0", "−5", "0"]
    assert texts(pooled) == ["0", "0", "2", "2"]
    assert [axes.get_title(loc="left") for axes in figure.axes] == [
        "input",
        "kernel edge-2",
        "filtered",
        "max-pooled by 2",
    ]
    assert filtered.get_xlabel().splitlines()[:2] == ["4 × 4", "height ⌊(6 + 2·0 − 3) / 1⌋ + 1 = 4"]
    save(figure, tmp_path / "kernel.png")


def test_zeros_of_the_padding_are_shown_around_it():
    given = draw_kernel(apply(PICTURE, KERNELS["edge-2"], padding=1)).axes[0]
    assert len(texts(given)) == 64
    assert texts(given)[:9] == ["0"] * 9
    assert given.get_xlim() == (-1.5, 6.5)
    assert given.get_xlabel() == "6 × 6, padding 1"


@pytest.mark.parametrize("channels", [1, 3])
def test_a_photograph_has_none(channels, tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (60, 90, channels), dtype=np.uint8)
    figure = draw_kernel(apply(image, KERNELS["box-blur"], 1, 2, 3), "box-blur")
    given, kernel, filtered, pooled = figure.axes
    assert texts(given) == texts(filtered) == texts(pooled) == []
    assert texts(kernel) == ["1/9"] * 9
    assert [axes.images[0].get_array().shape[:2] for axes in (given, filtered, pooled)] == [
        (60, 90),
        (30, 45),
        (10, 15),
    ]
    np.testing.assert_allclose(np.squeeze(given.images[0].get_array()), np.squeeze(image) / 255)
    save(figure, tmp_path / "kernel.png")


def test_of_values_of_both_signs_the_absolute_ones_are_drawn():
    filtered = draw_kernel(apply(PICTURE, KERNELS["edge-2"])).axes[2]
    shown = np.asarray(filtered.images[0].get_array())
    assert shown[0, 0] == 0
    assert shown[1, 1] == shown.max() == 1
    assert shown[2, 0] == pytest.approx(shown[1, 0])  # 2 and -2
    assert "absolute values, white from 5 on" in filtered.get_xlabel()


@pytest.mark.parametrize(("padding", "stride", "pool"), [(0, 1, 1), (1, 2, 2), (2, 3, 1), (0, 2, 3)])
def test_formulas_say_what_came_out(padding, stride, pool):
    """Their left sides are evaluated here, and their right sides are the sizes of what came out."""
    filtered = apply(np.zeros((17, 23)), KERNELS["edge-1"], padding, stride, pool)
    for formula, shape in (
        (size_formula(filtered), filtered.convolved.shape),
        (pool_formula(filtered), filtered.result.shape),
    ):
        for line, expected in zip(formula.splitlines(), shape, strict=True):
            term, result = line.split(" ", 1)[1].split(" = ")
            term = term.replace("⌊", "int(").replace("⌋", ")").replace("·", "*").replace("−", "-")
            assert eval(term) == int(result) == expected
