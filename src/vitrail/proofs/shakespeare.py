"""A small model of text pre-trained on Shakespeare, beside how often each letter follows each."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

from vitrail.data.text.corpus import open_corpus
from vitrail.errors import SettingError
from vitrail.proofs.bigram import bigram_loss
from vitrail.proofs.data import text
from vitrail.proofs.proof import Proof
from vitrail.recipes.pretraining.pretrain import pretrain
from vitrail.recipes.pretraining.settings import Pretrain


def pretrain_and_compare(proof: Proof, data: Path | None, settings: Pretrain, figure: str = "loss") -> Proof:
    """``proof`` with a figure of what ``settings`` train on the text's first nine tenths, and the baseline's.

    Both are measured on the last twentieth. Where the text is missing, the proof is skipped and tells the reason.
    """
    try:
        file = text("tinyshakespeare", data) / "input.txt"
    except SettingError as error:
        return replace(proof, reason=str(error))
    corpus = open_corpus(file)
    baseline = bigram_loss(corpus.splits["train"][0], corpus.splits["test"][0])
    began = time.perf_counter()
    figures = pretrain(replace(settings, data=str(file), overwrite=True))
    seconds = round(time.perf_counter() - began, 1)
    return replace(proof, measured=figures[figure], baseline=baseline, seconds=seconds)
