"""The 1,797 handwritten digits (8 x 8) that come with scikit-learn: real data without a download."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vitrail.data.sample import Image, Label, Sample
from vitrail.data.source import Dataset, Source, Subset
from vitrail.data.split import stratified
from vitrail.errors import DataError, SettingError

SHARES = (80, 20)  # per cent; the held-out fifth is always the same
SEED = 0


@dataclass(frozen=True)
class Digits(Source):
    """All digits.

    Attributes:
        images: ``(1797, 8, 8, 1)`` uint8, read-only.
        labels: the digit of each image.
    """

    images: NDArray[np.uint8]
    labels: Sequence[Label]

    def __len__(self) -> int:
        return len(self.labels)

    def name(self, index: int) -> str:
        return f"digits#{index}"

    def label(self, index: int) -> Label:
        return self.labels[index]

    def encoded(self, index: int) -> bytes:
        return self._image(index).tobytes()

    def sample(self, index: int) -> Sample:
        return Sample(self._image(index), self.name(index), self.labels[index])

    def _image(self, index: int) -> Image:
        return self.images[index]


def open_digits(spec: str) -> Dataset:
    """``digits``: 1,438 images to train on and a stratified fifth, 359, to test on; both are the same in every run.

    Raises:
        DataError: another ``spec``.
        SettingError: scikit-learn is not installed.
    """
    if spec != "digits":
        raise DataError(f"'{spec}' is not the bundled digits; write 'digits', or choose another format.")
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise SettingError("the digits come with scikit-learn: pip install 'vitrail[demo]'") from error
    bunch = load_digits()
    images = np.rint(bunch.images[..., None] * (255 / 16)).astype(np.uint8)  # stored as 0 to 16
    images.flags.writeable = False
    kinds = [Label(digit) for digit in range(10)]
    source = Digits(images, tuple(kinds[digit] for digit in bunch.target))
    train, test = stratified(source.labels, SHARES, SEED)
    return Dataset(
        "digits", "digits", tuple(map(str, range(10))), {"train": Subset(source, train), "test": Subset(source, test)}
    )
