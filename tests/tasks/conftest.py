"""What the tests of the tasks of text share: tiny models, and tokenizers of letters and of words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from vitrail import models
from vitrail.data.text import characters
from vitrail.data.text.rows import EvaluationRows
from vitrail.data.text.tokenizer import Tokenizer, library
from vitrail.nn.backbone import TextBackbone

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
TINY = {"width": 8, "depth": 1, "heads": 2, "mlp": 8}


class Text:
    """Functions for the tests of this folder."""

    special = SPECIAL

    @staticmethod
    def letters(special: Sequence[str] = SPECIAL) -> Tokenizer:
        """Each small letter, digit, space or point is a token."""
        return characters.learn(["abcdefghijklmnopqrstuvwxyz0123456789 .?"], 99, special)

    @staticmethod
    def words(text: str) -> Tokenizer:
        """Each word of a text is a token."""
        package = library()
        vocabulary = {token: number for number, token in enumerate((*SPECIAL, *dict.fromkeys(text.split())))}
        inner = package.Tokenizer(package.models.WordLevel(vocabulary, "[UNK]"))
        inner.pre_tokenizer = package.pre_tokenizers.WhitespaceSplit()
        inner.add_special_tokens(list(SPECIAL))
        return Tokenizer(inner)

    @staticmethod
    def bert(tokenizer: Tokenizer, context: int = 32, **changes: object) -> TextBackbone:
        torch.manual_seed(0)
        shape = {**TINY, "vocabulary": len(tokenizer), "context": context, "dropout": 0.0, **changes}
        return models.create_text("bert-base", **shape)

    @staticmethod
    def gpt(tokenizer: Tokenizer, context: int = 32) -> TextBackbone:
        torch.manual_seed(0)
        return models.create_text("gpt-nano", **TINY, vocabulary=len(tokenizer), context=context)

    @staticmethod
    def outputs(task, rows, batch_size: int = 4) -> list[np.ndarray]:
        """What a task says of each row."""
        task.eval()
        found = {}
        batches = EvaluationRows(rows, batch_size)
        for step in range(len(batches)):
            batch, numbers = batches[step]
            with torch.inference_mode():
                found.update(zip(numbers, task.outputs(batch), strict=True))
        return [found[number] for number in range(len(rows))]

    @staticmethod
    def learn(task, rows, steps: int = 60, rate: float = 0.01) -> None:
        """Train on all rows at once."""
        task.train()
        optimizer = torch.optim.Adam(task.parameters(), lr=rate)
        batch = rows.batch(range(len(rows)))
        for _ in range(steps):
            optimizer.zero_grad()
            task.loss(batch)["loss"].backward()
            optimizer.step()
        task.eval()


@pytest.fixture(scope="session")
def text() -> type[Text]:
    return Text
