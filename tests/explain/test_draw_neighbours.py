"""Images beside their neighbours: who is drawn where, with what frame and words."""

import numpy as np
from matplotlib.colors import to_hex

from vitrail.explain.draw_neighbours import Neighbour, draw_neighbours
from vitrail.metrics.draw import GREEN, INK, ORANGE


def image(value, channels=3):
    return np.full((6, 8, channels), value, np.uint8)


def test_each_row_is_an_image_and_its_neighbours_framed_by_whether_the_class_is_the_same():
    rows = [
        (image(10), "cat", [Neighbour(image(20), "cat", 0.951), Neighbour(image(30), "dog", 0.5)]),
        (image(40, 1), "dog", [Neighbour(image(50, 1), "dog", 1.0)]),
    ]
    figure = draw_neighbours(rows)
    panels = [axes for axes in figure.axes if axes.images]
    assert [int(np.asarray(axes.images[0].get_array()).mean()) for axes in panels] == [10, 20, 30, 40, 50]
    assert [axes.get_title() for axes in panels] == ["cat", "cat 0.95", "dog 0.50", "dog", "dog 1.00"]
    frames = [to_hex(axes.spines["left"].get_edgecolor()).upper() for axes in panels]
    assert frames == [INK.upper(), GREEN.upper(), ORANGE.upper(), INK.upper(), GREEN.upper()]
    (empty,) = (axes for axes in figure.axes if not axes.images)
    assert not empty.axison
