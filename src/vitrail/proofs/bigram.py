"""The baseline of models of text: how often each character followed each other one."""

from __future__ import annotations

import numpy as np


def bigram_loss(train: str, held_out: str) -> float:
    """Nats a character of ``held_out`` by a bigram that was counted in ``train``, every pair having one count more."""
    characters = {character: number for number, character in enumerate(sorted(set(train) | set(held_out)))}
    counts = np.ones((len(characters), len(characters)))
    np.add.at(counts, _pairs(train, characters), 1)
    logarithms = np.log(counts / counts.sum(axis=1, keepdims=True))
    return float(-logarithms[_pairs(held_out, characters)].mean())


def _pairs(text: str, characters: dict[str, int]) -> tuple[np.ndarray, np.ndarray]:
    """The number of each character but the last, and of the one after it."""
    numbers = np.array([characters[character] for character in text])
    return numbers[:-1], numbers[1:]
