import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from vitrail.explain.draw import Panel, draw_maps, overlay
from vitrail.metrics.draw import ORANGE, save


def panel(height=48, width=48, channels=3, label="shirt", truth=None, score=0.934, seed=0):
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (height, width, channels), dtype=np.uint8)
    return Panel(image, rng.random((3, 2)) + 0.01, label, score, truth)


def panels_of(figure):
    return [axes for axes in figure.axes if axes.images]


def titles(figure):
    return [axes.get_title(loc="left") for axes in panels_of(figure)]


def pixels(figure, path):
    """The saved picture as ``(H, W, 3)``, after a check that it has the size that was asked for."""
    save(figure, path)
    picture = Image.open(path).convert("RGB")
    assert picture.size == pytest.approx(tuple(figure.get_size_inches() * figure.dpi), abs=1)
    return np.asarray(picture).astype(int)


@pytest.mark.parametrize("count", [1, 2, 3, 7, 16])
def test_a_sheet_shows_every_panel_once(tmp_path, count):
    figure = draw_maps([panel(label=f"class {i}", seed=i) for i in range(count)])
    assert titles(figure) == [f"class {i} (93 %)" for i in range(count)]
    picture = pixels(figure, tmp_path / "sheet.png")
    assert picture[0, 0].tolist() == [255, 255, 255]
    boxes = [axes.get_window_extent() for axes in panels_of(figure)]
    assert min(box.width for box in boxes) > 400  # of which half is the image
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_a_panel_has_the_image_then_the_image_in_grey_under_its_map():
    shown = panel(height=40, width=60)
    axes = panels_of(draw_maps([shown]))[0]
    image, grey, heat = axes.images
    np.testing.assert_array_equal(image.get_array(), shown.image)
    np.testing.assert_allclose(grey.get_array(), shown.image.mean(axis=2) / 255)
    np.testing.assert_allclose(heat.get_array(), shown.map / shown.map.max())
    assert (heat.norm.vmin, heat.norm.vmax) == (0, 1)
    assert image.get_extent() == [0, 60, 40, 0]
    left, right, bottom, top = heat.get_extent()
    assert (right - left, bottom, top) == (pytest.approx(60), 40, 0)
    assert left > 60
    assert grey.get_extent() == heat.get_extent()


@pytest.mark.parametrize(("side", "squares"), [(8, True), (32, True), (33, False), (300, False)])
def test_tiny_images_are_shown_in_squares(side, squares):
    axes = panels_of(draw_maps([panel(side, side)]))[0]
    wanted = ["nearest", "nearest", "nearest"] if squares else ["auto", "auto", "bilinear"]
    assert [image.get_interpolation() for image in axes.images] == wanted


def test_the_map_is_where_it_belongs(tmp_path):
    """Of a map that is hot in one corner, that corner of the picture is the brightest, on a dark grey image."""
    heat = np.zeros((4, 4))
    heat[0, 3] = 1
    shown = Panel(np.full((64, 64, 1), 60, np.uint8), heat, "dark", 1.0)
    figure = draw_maps([shown])
    picture = pixels(figure, tmp_path / "sheet.png").sum(axis=2)
    box = panels_of(figure)[0].get_window_extent()
    x, y = np.arange(4) + 0.5, np.arange(4) + 0.5
    columns = (box.x1 - box.width / 2.03 * (1 - x / 4)).astype(int)
    rows = (len(picture) - box.y1 + box.height * y / 4).astype(int)
    brightness = picture[np.ix_(rows, columns)]
    assert np.unravel_index(brightness.argmax(), (4, 4)) == (0, 3)
    assert brightness[0, 3] > 2 * brightness[3, 0]


def test_mistakes_are_marked_and_truth_is_named():
    figure = draw_maps([panel(truth="dress"), panel(truth="shirt"), panel()])
    assert titles(figure) == ["✗ shirt (93 %), truth dress", "shirt (93 %)", "shirt (93 %)"]
    colours = [axes._left_title.get_color() for axes in panels_of(figure)]
    assert [colour == ORANGE for colour in colours] == [True, False, False]


def test_the_scale_of_each_map_is_told():
    shown = Panel(np.zeros((8, 8, 1), np.uint8), np.array([[0.1, 0.3], [0.1, 0.1]]), "0", 1.0)
    axes = panels_of(draw_maps([shown]))[0]
    assert [text.get_text() for text in axes.texts] == ["peak 2.0 × mean"]


@pytest.mark.parametrize(("height", "width"), [(8, 8), (30, 90), (90, 30), (1, 1)])
@pytest.mark.parametrize("channels", [1, 3])
def test_images_of_any_shape_keep_it(tmp_path, height, width, channels):
    figure = draw_maps([panel(height, width, channels), panel(height, width, channels)])
    pixels(figure, tmp_path / "sheet.png")
    box = panels_of(figure)[0].get_window_extent()
    assert box.width / box.height == pytest.approx(2.03 * width / height, rel=0.01)


def test_class_names_of_any_kind(tmp_path):
    """Neither formulas nor letters that the font lacks disturb the sheet, and long names do not run into others."""
    names = ["$_^{$", "猫", "n" * 60, "line\nbreak"]
    figure = draw_maps([panel(label=name, truth="m" * 60) for name in names])
    assert titles(figure)[1] == f"✗ ? (93 %), truth {'m' * 15}…"
    assert titles(figure)[2] == f"✗ {'n' * 15}… (93 %), truth {'m' * 15}…"
    pixels(figure, tmp_path / "sheet.png")
    ends = [axes._left_title.get_window_extent().x1 for axes in panels_of(figure)]
    assert ends[0] < panels_of(figure)[1].get_window_extent().x0
    assert ends[1] < figure.bbox.x1


def test_an_overlay_goes_into_any_axes():
    from matplotlib.figure import Figure

    axes = Figure().subplots()
    shown = panel()
    overlay(axes, shown.image, shown.map)
    assert [image.get_extent() for image in axes.images] == [[0, 48, 48, 0]] * 2


def test_matplotlib_is_imported_late_and_pyplot_never():
    program = """
import sys, numpy as np
from vitrail.explain.draw import Panel, draw_maps
assert "matplotlib" not in sys.modules
draw_maps([Panel(np.zeros((8, 8, 1), np.uint8), np.ones((2, 2)), "0", 1.0)])
assert "matplotlib" in sys.modules and "matplotlib.pyplot" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)
