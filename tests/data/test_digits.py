"""The bundled digits against scikit-learn's own copy."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from vitrail.data.digits import open_digits
from vitrail.errors import DataError, SettingError


def test_all_digits_once_and_a_stratified_fifth_held_out() -> None:
    load_digits = pytest.importorskip("sklearn.datasets").load_digits
    bunch = load_digits()
    dataset = open_digits("digits")
    assert dataset.classes == tuple("0123456789")
    seen = []
    for source in dataset.splits.values():
        for index in range(len(source)):
            number = int(source.name(index).removeprefix("digits#"))
            sample = source.sample(index)
            seen.append(number)
            assert sample.image.shape == (8, 8, 1)
            assert sample.image.dtype == np.uint8
            expected = [[int(value * 255 / 16 + 0.5) for value in row] for row in bunch.images[number]]
            assert sample.image[:, :, 0].tolist() == expected
            assert sample.label == source.label(index)
            assert source.label(index).index == bunch.target[number]
            assert source.encoded(index) == sample.image.tobytes()
    assert sorted(seen) == list(range(1797))
    test = dataset.splits["test"]
    counts = np.bincount([test.label(index).index for index in range(len(test))])
    assert (np.abs(counts - np.bincount(bunch.target) / 5) < 1).all()


def test_the_held_out_digits_are_always_the_same() -> None:
    pytest.importorskip("sklearn")
    first, second = (open_digits("digits").splits["test"] for _ in range(2))
    assert [first.name(index) for index in range(len(first))] == [second.name(index) for index in range(len(second))]


def test_without_scikit_learn_the_remedy_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(SettingError, match=r"pip install 'vitrail\[demo\]'"):
        open_digits("digits")


def test_another_word_is_refused() -> None:
    with pytest.raises(DataError, match="'digits:5' is not the bundled digits"):
        open_digits("digits:5")
