"""Next token: a model of text learns to say what comes next (Bengio et al. 2003; GPT, Radford et al. 2018 and 2019)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from vitrail.data.text.batch import TextBatch
from vitrail.data.text.tokenizer import Tokenizer
from vitrail.errors import SettingError
from vitrail.models.gpt.gpt import GPT, Cache
from vitrail.nn.backbone import TextBackbone
from vitrail.objectives.objective import TextObjective


class NextToken(TextObjective):
    """Logits ``(B, T, V)`` for the token after each one, through the embedding of the tokens turned around.

    The ``loss`` is the mean cross-entropy in nats a token.

    Raises :class:`SettingError` for a model that looks ahead, and so has nothing to guess.
    """

    name = "next-token"
    special = ("<|endoftext|>",)
    usual_model = "gpt-nano"
    next_command = "vitrail generate {run} --prompt ..."
    beta2 = 0.99  # nanoGPT's for small batches
    backbone: GPT

    @dataclass(frozen=True)
    class Options:
        """What can be set.

        Attributes:
            tied: whether the output layer is the embedding of the tokens (GPT-2's), or has weights of its own.
        """

        tied: bool = True

    def __init__(self, model: str, backbone: TextBackbone, tokenizer: Tokenizer, options: Any = None) -> None:
        if not isinstance(backbone, GPT):
            raise SettingError(
                f"{model} sees the tokens that it is to predict; take a GPT, such as {self.usual_model}."
            )
        super().__init__(model, backbone, tokenizer, options or self.Options())
        config = backbone.config
        self.head = None if self.options.tied else nn.Linear(config.width, config.vocabulary, bias=False)

    def forward(self, ids: Tensor, cache: Cache | None = None) -> Tensor:
        """Token ids ``(B, T)`` to logits ``(B, T, V)``; with a ``cache`` of the tokens before them."""
        return self.logits(self.backbone(ids, cache=cache).tokens)

    def logits(self, tokens: Tensor) -> Tensor:
        """What the model says of the next token, of encoded tokens ``(…, D)``."""
        layer = self.backbone.token_embedding if self.head is None else self.head
        return F.linear(tokens, layer.weight)

    @property
    def window(self) -> int:
        """One token more than the context: each is asked for the one after it."""
        return self.backbone.config.context + 1

    def loss(self, batch: TextBatch) -> dict[str, Tensor]:
        logits = self(batch.ids[:, :-1])
        return {"loss": F.cross_entropy(logits.float().flatten(0, 1), batch.ids[:, 1:].flatten())}

    def figures(self, losses: dict[str, float], batches: Any) -> dict[str, float]:
        """Perplexity, and bits that each character and each byte of the text would take, which tokenizers share."""
        text = self.tokenizer.decode(batches.ids.tolist())
        bits = losses["loss"] / math.log(2) * len(batches.ids)
        return losses | {
            "perplexity": math.exp(losses["loss"]),
            "bits_per_character": bits / max(1, len(text)),
            "bits_per_byte": bits / max(1, len(text.encode())),
        }
