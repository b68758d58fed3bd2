from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from vitrail.data.mix import Mix, mix
from vitrail.errors import SettingError

B, H, W, K = 64, 12, 17, 5


def batch(rows: int = B) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    images = rng.integers(0, 256, (rows, H, W, 3), dtype=np.uint8)
    return images, np.eye(K, dtype=np.float32)[rng.integers(K, size=rows)]


def different_labels(rows: int = B) -> np.ndarray:
    """Neighbours differ, so that their shares can be read off the mixed labels."""
    return np.eye(K, dtype=np.float32)[np.arange(rows) % 2]


def own_share(mixed: np.ndarray) -> np.ndarray:
    return mixed[np.arange(len(mixed)), np.arange(len(mixed)) % 2]


BOTH = Mix(mixup=0.8, cutmix=1.0)


@pytest.mark.parametrize("settings", [Mix(mixup=0.8), Mix(cutmix=1.0), BOTH, Mix(0.8, 1.0, probability=0.5)])
@pytest.mark.parametrize("cut", [2, 20, 62])
def test_slices_of_a_batch_are_mixed_as_the_whole(settings: Mix, cut: int) -> None:
    images, labels = batch()
    whole = mix(images, labels, settings, seed=1, step=9)
    head = mix(images[:cut], labels[:cut], settings, seed=1, step=9, first=0)
    tail = mix(images[cut:], labels[cut:], settings, seed=1, step=9, first=cut)
    for one, first, second in zip(whole, head, tail, strict=True):
        assert one.tobytes() == first.tobytes() + second.tobytes()


def test_a_slice_must_not_tear_a_pair_apart() -> None:
    with pytest.raises(ValueError, match="even row, not at 3"):
        mix(*batch(), BOTH, seed=0, step=0, first=3)


def test_seed_and_step_determine_everything_and_the_input_stays_as_it_was() -> None:
    images, labels = batch()
    before = images.tobytes(), labels.tobytes()
    first, again = mix(images, labels, BOTH, 1, 2), mix(images, labels, BOTH, 1, 2)
    assert [part.tobytes() for part in first] == [part.tobytes() for part in again]
    assert mix(images, labels, BOTH, 1, 3)[0].tobytes() != first[0].tobytes()
    assert mix(images, labels, BOTH, 2, 2)[0].tobytes() != first[0].tobytes()
    assert (images.tobytes(), labels.tobytes()) == before


@pytest.mark.parametrize("settings", [Mix(), Mix(0.8, 1.0, probability=0)])
def test_mixing_can_be_off(settings: Mix) -> None:
    images, labels = batch()
    mixed, shares = mix(images, labels, settings, 0, 0)
    np.testing.assert_array_equal(mixed, images)
    np.testing.assert_array_equal(shares, labels)


def test_an_odd_last_row_stays_as_it_is() -> None:
    images, labels = batch(7)
    mixed, shares = mix(images, labels, Mix(mixup=1.0), 0, 0)
    np.testing.assert_array_equal(mixed[6], images[6])
    np.testing.assert_array_equal(shares[6], labels[6])
    assert (mixed[:6] != images[:6]).any(axis=(1, 2, 3)).all()


def test_mixup_is_the_rounded_weighted_mean_of_the_neighbours() -> None:
    images, labels = batch()[0], different_labels()
    mixed, shares = mix(images, labels, Mix(mixup=1.0), 0, 0)
    share = own_share(shares).astype(np.float64)
    assert len(np.unique(share)) > B / 4  # every pair has its own
    np.testing.assert_array_equal(share[0::2], share[1::2])
    partners = images.reshape(B // 2, 2, H, W, 3)[:, ::-1].reshape(images.shape)
    expected = share[:, None, None, None] * images + (1 - share[:, None, None, None]) * partners
    np.testing.assert_array_equal(mixed, np.floor(expected + 0.5))
    np.testing.assert_allclose(shares.sum(axis=1), 1)


def test_cutmix_swaps_one_rectangle_whose_area_is_in_the_labels() -> None:
    images, labels = batch()[0], different_labels()
    images[0::2] = images[0::2] // 2 * 2  # even and odd values tell the two apart
    images[1::2] = images[1::2] // 2 * 2 + 1
    mixed, shares = mix(images, labels, Mix(cutmix=1.0), 0, 0)
    for row in range(B):
        swapped = (mixed[row] % 2 != row % 2).all(axis=-1)
        np.testing.assert_array_equal(mixed[row], np.where(swapped[..., None], images[row ^ 1], images[row]))
        assert own_share(shares)[row] == pytest.approx(1 - swapped.mean(), abs=1e-6)
        rows, columns = np.flatnonzero(swapped.any(axis=1)), np.flatnonzero(swapped.any(axis=0))
        if len(rows):
            assert swapped[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
    assert len(np.unique(own_share(shares))) > B / 4


def test_labels_keep_their_sum_when_neighbours_are_of_one_class() -> None:
    images = batch()[0]
    labels = np.zeros((B, K), np.float32)
    labels[:, 2] = 1
    np.testing.assert_allclose(mix(images, labels, BOTH, 0, 0)[1], labels, atol=1e-6)


def test_probability_and_switch_are_kept() -> None:
    images = np.zeros((2000, 8, 8, 1), np.uint8)
    images[1::2] = 255  # Mixup makes values in between, CutMix does not
    mixed, shares = mix(images, different_labels(2000), Mix(1.0, 1.0, probability=0.6, switch=0.25), 0, 0)
    blended = ((mixed > 0) & (mixed < 255)).any(axis=(1, 2, 3))[0::2]
    cut = ~blended & (own_share(shares)[0::2] < 1)
    assert blended.mean() == pytest.approx(0.6 * 0.75, abs=0.05)
    assert cut.mean() == pytest.approx(0.6 * 0.25, abs=0.05)  # 1000 pairs: a deviation of 0.014


def test_the_share_follows_the_beta_distribution() -> None:
    images = np.zeros((4000, 1, 1, 1), np.uint8)
    for alpha in (0.2, 1.0, 4.0):
        share = own_share(mix(images, different_labels(4000), Mix(mixup=alpha), 0, 0)[1])[0::2]
        assert share.mean() == pytest.approx(0.5, abs=0.04)
        assert share.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.1)


@pytest.mark.parametrize("wrong", [{"mixup": -0.1}, {"cutmix": -1.0}, {"probability": 1.1}, {"switch": -0.5}])
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(SettingError):
        Mix(**wrong)
