"""Palettes: against scikit-learn's k-means, and what they must be whatever the images."""

from dataclasses import dataclass

import numpy as np
import pytest
from sklearn.cluster import KMeans

from vitrail.data import palette
from vitrail.data.palette import ENOUGH, assign, fit_palette, k_means, lloyd, spread
from vitrail.data.preprocess import Preprocess
from vitrail.data.sample import Sample
from vitrail.data.source import Source
from vitrail.errors import DataError, UnreadableImage


@dataclass(frozen=True)
class Pictures(Source):
    """Images in memory; one that is None cannot be read."""

    images: tuple

    def __len__(self):
        return len(self.images)

    def name(self, index):
        return str(index)

    def label(self, index):
        return None

    def encoded(self, index):
        raise NotImplementedError

    def sample(self, index):
        if self.images[index] is None:
            raise UnreadableImage(str(index), "damaged")
        return Sample(self.images[index], str(index))


def pictures(count=20, channels=3, most=256, size=8):
    rng = np.random.default_rng(0)
    return Pictures(tuple(rng.integers(most, size=(size, size, channels), dtype=np.uint8) for _ in range(count)))


def plain(channels=3, size=8):
    return Preprocess((size, size), mean=(0.5,) * channels, std=(0.5,) * channels, channels=channels)


def points(count=600, k=12):
    """Points about ``k`` centres, and how often each counts."""
    rng = np.random.default_rng(1)
    centres = rng.random((k, 3))
    return centres[rng.integers(k, size=count)] + rng.normal(0, 0.08, (count, 3)), rng.integers(1, 5, count).astype(
        float
    )


def error(points, weights, means):
    return float(weights @ assign(points, means)[1])


def test_lloyds_algorithm_ends_where_scikit_learns_does():
    x, weights = points()
    start = x[:12]
    theirs = KMeans(12, init=start, n_init=1, tol=0, max_iter=300, algorithm="lloyd").fit(x, sample_weight=weights)
    np.testing.assert_allclose(lloyd(x, weights, start, enough=0), theirs.cluster_centers_, atol=1e-8)


def test_it_is_as_good_as_scikit_learns_best_of_ten():
    x, weights = points()
    theirs = KMeans(12, n_init=10, random_state=0).fit(x, sample_weight=weights).inertia_
    ours = [error(x, weights, k_means(x, weights, 12, np.random.default_rng(seed))) for seed in range(10)]
    assert min(ours) <= theirs * 1.01
    assert np.median(ours) <= theirs * 1.15


def test_a_weight_is_so_many_equal_points():
    x, weights = points(100, 4)
    many = np.repeat(x, weights.astype(int), axis=0)
    np.testing.assert_allclose(lloyd(x, weights, x[:4]), lloyd(many, np.ones(len(many)), x[:4]), atol=1e-9)


def test_a_mean_without_points_takes_the_farthest_one():
    x = np.array([[0.0], [0.1], [0.9], [1.0], [5.0]])
    means = lloyd(x, np.ones(5), np.array([[0.5], [0.5], [5.0]]), enough=0)  # all of the first two's are the first's
    assert sorted(means.ravel().tolist()) == pytest.approx([0.05, 0.95, 5.0])


def test_the_start_is_spread_over_the_points():
    x = np.concatenate([np.full((1000, 2), 0.1), np.array([[0.9, 0.9]]), np.array([[0.9, 0.1]])])
    x, counts = np.unique(x, axis=0, return_counts=True)
    chosen = spread(x, counts.astype(float), 3, np.random.default_rng(0))
    assert {tuple(point) for point in chosen} == {(0.1, 0.1), (0.9, 0.9), (0.9, 0.1)}  # and not the same one thrice


def test_distances_are_compared_part_by_part(monkeypatch):
    x, _ = points(100, 5)
    whole = assign(x, x[:7])
    monkeypatch.setattr(palette, "AT_ONCE", 9)
    parts = assign(x, x[:7])
    np.testing.assert_array_equal(parts[0], whole[0])
    np.testing.assert_allclose(parts[1], ((x - x[parts[0]]) ** 2).sum(axis=1), atol=1e-12)


def test_images_of_few_colours_keep_them_all():
    source = pictures(channels=1, most=5)
    np.testing.assert_allclose(fit_palette(source, plain(1), 16), np.arange(5)[:, None] / 255)


def test_colours_go_from_dark_to_bright_and_depend_on_the_seed_alone():
    source = pictures()
    found = fit_palette(source, plain(), 16, seed=3)
    assert found.shape == (16, 3)
    assert found.dtype == np.float32
    assert (np.diff(found.sum(axis=1)) >= 0).all()
    np.testing.assert_array_equal(fit_palette(source, plain(), 16, seed=3), found)
    assert not np.array_equal(fit_palette(source, plain(), 16, seed=4), found)


def test_more_colours_mean_less_error():
    source = pictures()
    pixels = np.concatenate([image.reshape(-1, 3) for image in source.images]) / 255
    errors = [error(pixels, np.ones(len(pixels)), fit_palette(source, plain(), k)) for k in (4, 16, 64)]
    assert errors == sorted(errors, reverse=True)
    assert errors[2] < 0.35 * errors[0]


def test_of_large_sources_a_sample_is_looked_at(monkeypatch):
    monkeypatch.setattr(palette, "IMAGES", 6)
    monkeypatch.setattr(palette, "PIXELS", 60)
    seen = palette.pixels_of(pictures(), plain(), np.random.default_rng(0))
    assert seen.shape == (60, 3)


def test_images_that_cannot_be_read_are_left_out():
    whole = pictures()
    broken = Pictures((None, *whole.images))
    assert fit_palette(broken, plain(), 8).shape == (8, 3)
    with pytest.raises(DataError, match="no image could be read"):
        fit_palette(Pictures((None, None)), plain(), 8)


def test_images_of_one_colour_are_refused():
    with pytest.raises(DataError, match=r"one colour only, \(0, 0, 0\)"):
        fit_palette(pictures(most=1), plain(), 8)


def test_it_stops_when_more_is_of_no_more_use():
    x, weights = points()
    rough, exact = lloyd(x, weights, x[:12]), lloyd(x, weights, x[:12], enough=0)
    assert error(x, weights, rough) <= error(x, weights, exact) * (1 + 20 * ENOUGH)
