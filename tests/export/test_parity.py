"""How far an exported model is from the original: differences, agreement, what passes, what is measured on."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vitrail.data.preprocess import Preprocess
from vitrail.export import parity

LOGITS = np.array([[2.0, -1.0, 0.5], [0.1, 0.2, 0.3], [5.0, 1.0, 1.0], [-1.0, 3.0, 2.9]], np.float32)


def test_the_same_logits_pass() -> None:
    found = parity.compare(LOGITS, LOGITS, many_labels=False, int8=False)
    assert found["passed"]
    assert (found["max_difference"], found["agreement"], found["largest_logit"]) == (0, 1, 5)
    assert found["tolerance"] == pytest.approx(5e-3)


@pytest.mark.parametrize(("difference", "passed"), [(0.004, True), (0.006, False)])
def test_a_difference_counts_beside_the_largest_logit(difference: float, passed: bool) -> None:
    after = LOGITS.copy()
    after[1, 0] -= difference
    found = parity.compare(LOGITS, after, many_labels=False, int8=False)
    assert found["max_difference"] == pytest.approx(difference, abs=1e-6)
    assert found["passed"] is passed


def test_small_logits_have_an_absolute_tolerance() -> None:
    found = parity.compare(LOGITS / 100, LOGITS / 100 + np.float32(0.0011), many_labels=False, int8=False)
    assert found["tolerance"] == 1e-3
    assert not found["passed"]


def test_with_weights_of_8_bits_the_labels_count() -> None:
    found = parity.compare(LOGITS, LOGITS + 7, many_labels=False, int8=True)
    assert found["passed"]
    assert found["max_difference"] == pytest.approx(7)
    after = LOGITS.copy()
    after[3] = (0, 0, 9)  # one of four has another label
    found = parity.compare(LOGITS, after, many_labels=False, int8=True)
    assert found["agreement"] == 0.75
    assert not found["passed"]


def test_of_many_labels_every_decision_counts() -> None:
    after = LOGITS.copy()
    after[0, 2] = -0.1  # one of twelve turns over; the first label stays the first
    found = parity.compare(LOGITS, after, many_labels=True, int8=True)
    assert found["agreement"] == pytest.approx(11 / 12)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_images_for_want_of_data(channels: int) -> None:
    preprocess = Preprocess((20, 16), mean=(0.5,) * channels, std=(0.5,) * channels, channels=channels)
    words, images = parity.pictures(preprocess)
    assert words == ("64 images of random pixels" if channels == 4 else "64 drawn scenes")
    assert images.shape == (64, channels, 20, 16)
    assert images.dtype == torch.uint8
    assert torch.equal(images, parity.pictures(preprocess)[1])
    assert len(images.unique(dim=0)) == 64


def test_times_are_those_of_an_image() -> None:
    calls: list[int] = []

    def model(images: torch.Tensor) -> torch.Tensor:
        calls.append(len(images))
        return images.float().mean(dim=(1, 2))

    preprocess = Preprocess((8, 8))
    found = parity.times({"before": model, "after": model}, preprocess)
    assert found.keys() == {"1", "32"}
    assert all(set(each) == {"before", "after"} and min(each.values()) >= 0 for each in found.values())
    least, most = parity.RUNS
    assert 2 * (least + 1) <= calls.count(32) <= 2 * (most + 1)
    assert set(calls) == {1, 32}
