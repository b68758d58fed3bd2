import numpy as np
import pytest

from vitrail.metrics.pointing import hits

BOX = np.array([[2, 1, 4, 3]], np.float32)  # columns 2 and 3, rows 1 and 2


@pytest.mark.parametrize("row", range(5))
@pytest.mark.parametrize("column", range(6))
def test_the_strongest_pixel_hits_if_it_is_in_the_box(row, column):
    heat = np.full((1, 5, 6), 0.1)
    heat[0, row, column] = 1
    assert hits(heat, BOX).tolist() == [row in (1, 2) and column in (2, 3)]


def test_of_several_strongest_places_the_middle_counts():
    heat = np.zeros((2, 5, 6))
    heat[0, 1:3, 2:4] = 1
    heat[1, 1, [0, 5]] = 1  # their middle is in the box, though neither is
    assert hits(heat, np.repeat(BOX, 2, axis=0)).tolist() == [True, True]


def test_an_empty_map_misses():
    assert hits(np.zeros((1, 5, 6)), BOX).tolist() == [False]


def test_random_maps_hit_as_often_as_the_object_is_large():
    rng = np.random.default_rng(0)
    count, side = 4000, 20
    maps, corners = rng.random((count, side, side)), rng.integers(0, 12, (count, 2))
    boxes = np.concatenate([corners, corners + [8, 5]], axis=1).astype(np.float32)
    assert hits(maps, boxes).mean() == pytest.approx(8 * 5 / side**2, abs=0.015)
