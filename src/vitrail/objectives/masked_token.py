"""Masked tokens and the next sentence: what BERT (Devlin et al. 2019, section 3.1) and RoBERTa learn from.

Some tokens of a text are hidden, and are to be guessed from those on both sides. BERT learns besides whether the second
of two stretches of text comes after the first, or from elsewhere; RoBERTa (Liu et al. 2019) does as well without.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import Dataset as TorchDataset

from vitrail.data.rng import uniform
from vitrail.data.text.batch import TextBatch
from vitrail.data.text.sentences import EvaluationPairs, Sentences, TrainingPairs
from vitrail.data.text.tokenizer import Tokenizer
from vitrail.data.text.windows import EndlessBatches
from vitrail.data.text.wordpiece import continues_word
from vitrail.errors import SettingError
from vitrail.models.bert import BERT, Config, initialise
from vitrail.nn.backbone import TextBackbone
from vitrail.nn.mlp import ACTIVATIONS
from vitrail.nn.norm import LayerNorm
from vitrail.objectives.objective import TextObjective

HIDDEN, CHANGED = 0.8, 0.1  # of the chosen tokens; the rest is left as it is (section 3.1)


class Head(nn.Module):
    """Encoded tokens ``(…, D)`` to logits ``(…, V)``, through the embedding of the tokens turned around.

    With ``next_sentence`` it has also a linear map ``next`` of what is pooled to two classes: 0 for the text that comes
    next, 1 for any other.
    """

    def __init__(self, config: Config, next_sentence: bool) -> None:
        super().__init__()
        self.dense = nn.Linear(config.width, config.width)
        self.act = ACTIVATIONS[config.activation]()
        self.norm = LayerNorm(config.width, eps=config.norm_eps)
        self.bias = nn.Parameter(torch.zeros(config.vocabulary))
        self.next = nn.Linear(config.width, 2) if next_sentence else None
        initialise(self, config.initial_std)

    def forward(self, tokens: Tensor, embedding: Tensor) -> Tensor:
        return F.linear(self.norm(self.act(self.dense(tokens))), embedding, self.bias)


class Filled(NamedTuple):
    """A text with its gaps filled in.

    Attributes:
        text: with the likeliest token in each gap.
        guesses: for each gap the likeliest tokens with their probabilities, the best first.
    """

    text: str
    guesses: list[list[tuple[str, float]]]


class MaskedToken(TextObjective):
    """A model that looks both ways guesses the tokens that are hidden from it.

    Of the tokens that are chosen 80 % are replaced by the mask token, 10 % by any other, 10 % stay as they are. The
    ``loss`` is the mean cross-entropy of the chosen ones in nats, to which that of the next sentence is added where
    ``options.next_sentence``; ``accuracy`` is the share that is guessed right. Without it nothing reads what is pooled:
    the model's layer for that is left out, and what is pooled is the first token.

    Raises :class:`SettingError` for a model that is no BERT, a tokenizer without the special tokens that this needs or
    with more tokens than the model, and a share that hides none or all.
    """

    name = "masked-token"
    special = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
    usual_model = "bert-nano"
    backbone: BERT
    text_tokens: Tensor
    is_special: Tensor
    continues: Tensor

    @dataclass(frozen=True)
    class Options:
        """What can be set.

        Attributes:
            mask_ratio: the share of tokens that are chosen, of those that are text; at least one of each row.
            next_sentence: whether rows are pairs of stretches of text, of which half do not belong together.
            whole_words: whether all pieces of a word are chosen together.
        """

        mask_ratio: float = 0.15
        next_sentence: bool = False
        whole_words: bool = False

    def __init__(self, model: str, backbone: TextBackbone, tokenizer: Tokenizer, options: Any = None) -> None:
        options = options or self.Options()
        refuse(model, backbone, options)
        super().__init__(model, backbone, tokenizer, options)
        self.first, self.separator, self.mask = needed_tokens(tokenizer)
        if not options.next_sentence:
            self.backbone.leave_out_pooler()
        self.head = Head(self.backbone.config, options.next_sentence)
        special = torch.zeros(self.backbone.config.vocabulary, dtype=torch.bool)
        special[list(tokenizer.special)] = True
        self.register_buffer("is_special", special, persistent=False)
        self.register_buffer("text_tokens", (~special[: len(tokenizer)]).nonzero().flatten(), persistent=False)
        continues = continues_word(tokenizer) if options.whole_words else []
        self.register_buffer("continues", torch.tensor(continues, dtype=torch.bool), persistent=False)

    def forward(self, ids: Tensor, segments: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """Token ids ``(B, T)``, some of them the mask token's, to logits ``(B, T, V)`` for what stands there."""
        return self.logits(self.backbone(ids, segments, mask).tokens)

    def logits(self, tokens: Tensor) -> Tensor:
        """What the model guesses, of encoded tokens ``(…, D)``."""
        return self.head(tokens, self.backbone.token_embedding.weight)

    @property
    def window(self) -> int:
        """Two tokens fewer than the context, which the first and the last one take."""
        return self.backbone.config.context - 2

    def training_batches(
        self, documents: Sequence[NDArray], batch_size: int, seed: int, rank: int = 0, world: int = 1
    ) -> EndlessBatches:
        if not self.options.next_sentence:
            return super().training_batches(documents, batch_size, seed, rank, world)
        return TrainingPairs(self.sentences(documents), batch_size, seed, rank, world)

    def evaluation_batches(
        self, documents: Sequence[NDArray], batch_size: int, rank: int = 0, world: int = 1, most: int | None = None
    ) -> TorchDataset[TextBatch]:
        if not self.options.next_sentence:
            return super().evaluation_batches(documents, batch_size, rank, world, most)
        return EvaluationPairs(self.sentences(documents), batch_size, rank, world, most)

    def sentences(self, documents: Sequence[NDArray]) -> Sentences:
        """The documents cut into sentences, to be put together to pairs that fit the context."""
        return Sentences.of(documents, self.tokenizer, self.backbone.config.context)

    def loss(self, batch: TextBatch) -> dict[str, Tensor]:
        ids = batch.ids if self.options.next_sentence else self.framed(batch.ids)
        hidden, chosen = self.hide(ids, batch.draws, batch.mask)
        features = self.backbone(hidden, batch.segments, batch.mask)
        guesses, wanted = self.logits(features.tokens[chosen]).float(), ids[chosen]
        masked = F.cross_entropy(guesses, wanted, reduction="sum") / max(1, len(wanted))
        accuracy = {"accuracy": (guesses.argmax(dim=-1) == wanted).float().mean()}
        if self.head.next is None:
            return {"loss": masked, **accuracy}
        assert batch.labels is not None, "pairs of text say whether they belong together"
        follows = self.head.next(features.pooled).float()
        following = F.cross_entropy(follows, batch.labels)
        accuracy["next_accuracy"] = (follows.argmax(dim=-1) == batch.labels).float().mean()
        return {"loss": masked + following, "masked": masked, "next": following, **accuracy}

    def framed(self, ids: Tensor) -> Tensor:
        """Windows of text between the first token of an input and the one that ends a part of it."""
        first, last = (ids.new_full((len(ids), 1), token) for token in (self.first, self.separator))
        return torch.cat([first, ids, last], dim=1)

    def hide(self, ids: Tensor, draws: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Rows ``(B, T)`` with some tokens replaced, and which were chosen, ``(B, T)`` bool; by the ``draws (B,)``."""
        choice, fate, which = uniform(draws, 3 * ids.shape[1]).unflatten(1, (-1, 3)).unbind(-1)
        may = ~self.is_special[ids] if mask is None else ~self.is_special[ids] & mask
        chosen = choose(choice, may, self.beginnings(ids, may), self.options.mask_ratio)
        others = self.text_tokens[(which * len(self.text_tokens)).long()]
        replaced = torch.where(fate < HIDDEN, self.mask, torch.where(fate < HIDDEN + CHANGED, others, ids))
        return torch.where(chosen, replaced, ids), chosen

    def beginnings(self, ids: Tensor, may: Tensor) -> Tensor:
        """Whether a token is the first of what is chosen together, ``(B, T)`` bool: each, or the first of a word."""
        if not self.options.whole_words:
            return torch.ones_like(may)
        behind = may & may.roll(1, dims=1)
        behind[:, 0] = False
        return ~(behind & self.continues[ids])

    @torch.no_grad()
    def fill(self, text: str, most: int = 5) -> Filled:
        """A text with mask tokens in it as the model fills them in: each by itself, not knowing how the others are.

        Raises :class:`SettingError` for a text without a mask token, or longer than the context.
        """
        ids = self.framed(torch.tensor([self.tokenizer.encode(text)], dtype=torch.long, device=self.text_tokens.device))
        places = (ids[0] == self.mask).nonzero().flatten()
        if not len(places):
            word = self.tokenizer.token(self.mask)
            raise SettingError(f"nothing is hidden in '{text}'; write {word} in the place of a token.")
        shares = self(ids)[0, places].float().softmax(dim=-1)[:, self.text_tokens]
        best = shares.topk(min(most, len(self.text_tokens)))
        found = self.text_tokens[best.indices]
        ids[0, places] = found[:, 0]
        rows = zip(found.tolist(), best.values.tolist(), strict=True)
        guesses = [[(self.tokenizer.decode([i]), share) for i, share in zip(*row, strict=True)] for row in rows]
        return Filled(self.tokenizer.decode(ids[0].tolist()), guesses)


def choose(chance: Tensor, may: Tensor, begins: Tensor, share: float) -> Tensor:
    """Which tokens are chosen, ``(B, T)`` bool: of those that ``may`` be the share, rounded, and at least one.

    Those from one that ``begins`` to the next are chosen together; the last of them may go beyond the share.

    Args:
        chance: ``(B, T)``, numbers in 0 … 1.
        may: ``(B, T)`` bool.
        begins: ``(B, T)`` bool, in each row True at first.
    """
    places = torch.arange(chance.shape[1], device=chance.device)
    first = torch.where(begins, places, 0).cummax(dim=1).values  # where what a token belongs to begins
    order = chance.gather(1, first).masked_fill(~may, 2.0).argsort(dim=1, stable=True)
    rank = torch.empty_like(order).scatter(1, order, places.expand_as(order))
    count = (share * may.sum(dim=1, keepdim=True)).round().clamp(min=1)
    return may & (rank.gather(1, first) < count)


def needed_tokens(tokenizer: Tokenizer) -> tuple[int, ...]:
    """Ids of the first token of an input, the separator and the mask.

    Raises :class:`SettingError` for a tokenizer that lacks one of them, or what fills up rows.
    """
    found = {"[CLS]": tokenizer.first, "[SEP]": tokenizer.separator, "[MASK]": tokenizer.mask}
    if missing := [name for name, token in {**found, "[PAD]": tokenizer.pad}.items() if token is None]:
        raise SettingError(
            f"this tokenizer has no token such as {', '.join(missing)}, without which none can be hidden; take one of "
            "BERT or RoBERTa, or --tokenizer words."
        )
    return tuple(token for token in found.values() if token is not None)


def refuse(model: str, backbone: TextBackbone, options: MaskedToken.Options) -> None:
    """Raises :class:`SettingError` for what masked tokens cannot be learned with."""
    if not isinstance(backbone, BERT):
        raise SettingError(
            f"masked tokens are guessed from both sides, but {model} is no BERT; take --model bert-nano."
        )
    if not 0 < options.mask_ratio < 1:
        how_many = "all" if options.mask_ratio >= 1 else "none"
        raise SettingError(
            f"a mask ratio of {options.mask_ratio:g} hides {how_many} of the tokens; it must lie between 0 and 1."
        )
