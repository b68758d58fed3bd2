"""Span corruption (T5: Raffel et al., JMLR 2020, arXiv:1910.10683, sections 3.1.4 and 3.3.4): fill the gaps of a text.

Spans of tokens are taken out, each is replaced by a token of its own, a sentinel; what was taken out is to be written:
"Thank you <extra_id_0> me to your party <extra_id_1> week." asks for "<extra_id_0> for inviting <extra_id_1> last".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from vitrail.data.text.batch import TextBatch
from vitrail.data.text.spans import corrupted, longest
from vitrail.data.text.tokenizer import Tokenizer
from vitrail.errors import SettingError
from vitrail.nn.backbone import TextBackbone
from vitrail.nn.encoder_decoder import EncoderDecoder, select
from vitrail.objectives.objective import TextObjective

SENTINELS = tuple(f"<extra_id_{number}>" for number in range(100))  # as many as the published T5s have


class Span(TextObjective):
    """Logits ``(B, N, V)`` of an encoder-decoder for each token that it writes, given what it reads.

    The ``loss`` is the mean cross-entropy in nats a token that is written, sentinels and end among them; ``text`` is
    that of the text alone.

    Raises :class:`SettingError` for a model that does not write, a tokenizer without the tokens that are needed, or a
    share that hides nothing or everything.
    """

    name = "span"
    special = ("<pad>", "</s>", "<unk>", *SENTINELS)
    usual_model = "t5-nano"
    next_command = 'vitrail generate {run} --prompt "... <extra_id_0> ..."'
    beta2 = 0.99  # for small batches, as of `NextToken`
    backbone: EncoderDecoder

    @dataclass(frozen=True)
    class Options:
        """What can be set.

        Attributes:
            mask_ratio: the share of tokens that is taken out.
            span: the mean length of what is taken out in one piece, in tokens.
            tied: whether the output layer is the embedding of the tokens, or has weights of its own; None for what the
                model's paper has: in version 1.1 of T5 it has its own.
        """

        mask_ratio: float = 0.15
        span: float = 3.0
        tied: bool | None = None

    def __init__(self, model: str, backbone: TextBackbone, tokenizer: Tokenizer, options: Any = None) -> None:
        if not isinstance(backbone, EncoderDecoder) or not backbone.config.decoder_depth:
            raise SettingError(f"filling gaps takes a model that reads and writes, such as t5-nano; {model} is none.")
        options = options or self.Options()
        tied = backbone.tied if options.tied is None else options.tied
        super().__init__(model, backbone, tokenizer, replace(options, tied=tied))
        if tokenizer.pad is None or tokenizer.end is None:
            raise SettingError("the tokenizer has no <pad> or no </s>, which writing begins and ends with.")
        self.pad, self.end = tokenizer.pad, tokenizer.end
        self.lengths = longest(backbone.config.context, self.options.mask_ratio, self.options.span)
        self.sentinels = sentinels(tokenizer)
        if self.lengths.spans > len(self.sentinels):
            raise SettingError(
                f"a text of {self.window} tokens has {self.lengths.spans} gaps, but the tokenizer has "
                f"{len(self.sentinels)} tokens <extra_id_0> … to mark them; take longer spans or a smaller --context."
            )
        config = backbone.config
        self.head = None if self.options.tied else nn.Linear(config.width, config.vocabulary, bias=False)

    @property
    def window(self) -> int:
        """As many tokens of the corpus as fill the context once spans of them are taken out."""
        return self.lengths.window

    def joined(self, documents: Sequence[NDArray]) -> NDArray:
        """The documents in a row. Nothing stands between two: an end shall be the end of what is written."""
        return np.concatenate(documents) if documents else np.empty(0, np.int32)

    def forward(self, source: Tensor, written: Tensor, mask: Tensor | None = None) -> Tensor:
        """What is read ``(B, M)`` and what is written so far ``(B, N)`` to logits ``(B, N, V)`` for what comes next."""
        memory = self.backbone.encode(source, mask)
        return self.logits(self.backbone.decode(written, memory, mask))

    def logits(self, tokens: Tensor) -> Tensor:
        """What the model says of the next token, of decoded tokens ``(…, D)``."""
        if self.head is not None:
            return self.head(tokens)
        return F.linear(tokens * self.backbone.output_scale, self.backbone.token_embedding.weight)

    def loss(self, batch: TextBatch) -> dict[str, Tensor]:
        source, target = corrupted(batch.ids, batch.draws, self.lengths, self.sentinels, self.end)
        begin = target.new_full((len(target), 1), self.pad)
        logits = self(source, torch.cat([begin, target[:, :-1]], dim=1))
        losses = F.cross_entropy(logits.float().flatten(0, 1), target.flatten(), reduction="none")
        of_text = ~torch.isin(target, target.new_tensor([*self.sentinels, self.end])).flatten()
        return {"loss": losses.mean(), "text": losses[of_text].mean()}


def sentinels(tokenizer: Tokenizer) -> list[int]:
    """Ids of <extra_id_0>, <extra_id_1>, … as many as the tokenizer has."""
    found: list[int] = []
    while (index := tokenizer.inner.token_to_id(f"<extra_id_{len(found)}>")) is not None:
        found.append(index)
    return found


class AnswerWriter:
    """What `nn.beam` writes answers with: it reads a text once, and computes no token twice.

    Args:
        objective: the model that reads and writes.
        source: ``(B, M)`` int64, what is read.
        mask: ``(B, M)`` bool, False for what only fills a row up.
    """

    def __init__(self, objective: Span, source: Tensor, mask: Tensor | None = None) -> None:
        self.objective = objective
        self.memory = objective.backbone.encode(source, mask)
        self.mask = mask
        self.cache = objective.backbone.new_cache()

    def step(self, last: Tensor) -> Tensor:
        """The last token ``(B,)`` of each answer to logits ``(B, V)`` for the next one."""
        tokens = self.objective.backbone.decode(last.unsqueeze(1), self.memory, self.mask, self.cache)
        return self.objective.logits(tokens[:, -1])

    def select(self, rows: Tensor) -> None:
        """Go on with these rows ``(B',)`` of the batch."""
        select(self.cache, rows)
        self.memory = self.memory[rows]
        self.mask = None if self.mask is None else self.mask[rows]
