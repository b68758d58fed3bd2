"""The Transformer of 2017 reads a word and writes it backwards: each letter depends on another one that was read."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from vitrail import models
from vitrail.console import progress, say
from vitrail.data.rng import generator, torch_seed
from vitrail.data.text.characters import learn
from vitrail.data.text.corpus import read_text
from vitrail.errors import SettingError
from vitrail.metrics import draw
from vitrail.nn.beam import token_by_token
from vitrail.objectives.span import AnswerWriter, Span
from vitrail.proofs.data import text
from vitrail.proofs.proof import Proof
from vitrail.train.optim import build_optimizer, set_learning_rate
from vitrail.train.precision import choose_precision, products_in
from vitrail.train.schedule import warmup_cosine

CONTEXT = 16  # the longest words have 14 letters; then comes the end
STEPS, BATCH, LEARNING_RATE = 600, 64, 2e-3
UNSEEN = 1000  # words that are held back
SHOWN = 3  # of them, in the picture


def prove(data: Path | None, out: Path, seed: int = 0) -> Proof:
    """The share of 1,000 words that were not trained on which come out backwards to the last letter.

    The words are Shakespeare's. The baseline is the same network when it reads another unseen word of the same length,
    so that only what a word's end and length give away is left to it.
    """
    proof = Proof("transformer", "unseen words written backwards", measured=None, baseline=None, bar=0.95)
    try:
        file = text("tinyshakespeare", data) / "input.txt"
    except SettingError as error:
        return replace(proof, reason=str(error))
    words = sorted(set(re.findall(r"\b[a-z]{3,14}\b", read_text(file).lower())))
    words = [words[place] for place in generator(seed, "split").permutation(len(words))]
    unseen, seen = words[:UNSEEN], words[UNSEEN:]
    began = time.perf_counter()
    learner = trained(seen, seed)
    measured = share_right(learner, unseen, unseen)
    others = sorted(unseen, key=len)
    baseline = share_right(learner, others, others[1:] + others[:1])
    seconds = round(time.perf_counter() - began, 1)
    draw_attention(learner, sorted(unseen, key=lambda word: abs(len(word) - 8))[:SHOWN], out / "attention.png")
    say(f"transformer: what it looks at as it writes is in {out / 'attention.png'}")
    return replace(proof, measured=measured, baseline=baseline, seconds=seconds)


def trained(words: Sequence[str], seed: int) -> Span:
    """The network after some hundred batches of words."""
    torch.manual_seed(torch_seed(seed, "init"))
    tokenizer = learn(words, 200, Span.special)
    backbone = models.create_text("transformer-nano", vocabulary=len(tokenizer), context=CONTEXT)
    learner = Span("transformer-nano", backbone, tokenizer)
    optimizer = build_optimizer(cast(Any, learner), "adamw", LEARNING_RATE, 0.05, beta2=0.99)
    source, target = as_rows(learner, words), as_rows(learner, [word[::-1] for word in words])
    device = torch.device("cpu")
    with progress("training", STEPS) as advance:
        for step in range(STEPS):
            rows = torch.from_numpy(generator(seed, "order", step).integers(len(words), size=BATCH))
            set_learning_rate(optimizer, LEARNING_RATE * warmup_cosine(step, STEPS, STEPS // 20))
            with products_in(choose_precision(device), device):
                logits = learner(source[rows], begun(learner, target[rows]), source[rows] != learner.pad)
            wanted = target[rows].flatten()
            loss = F.cross_entropy(logits.float().flatten(0, 1), wanted, ignore_index=learner.pad)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(learner.parameters(), 1.0)
            optimizer.step()
            advance(step + 1, f"loss {loss.item():.3f}")
    return learner.eval()


def as_rows(learner: Span, words: Sequence[str]) -> Tensor:
    """Ids ``(N, context)`` of the letters, the end, and what fills a row up."""
    rows = torch.full((len(words), CONTEXT), learner.pad)
    for row, letters in zip(rows, learner.tokenizer.encode_many(words), strict=True):
        row[: len(letters) + 1] = torch.tensor([*letters.tolist(), learner.end])
    return rows


def begun(learner: Span, target: Tensor) -> Tensor:
    """What is written before each token of the target."""
    return F.pad(target[:, :-1], (1, 0), value=learner.pad)


@torch.inference_mode()
def share_right(learner: Span, asked: Sequence[str], read: Sequence[str]) -> float:
    """The share of the words ``asked`` that are written backwards where those in ``read`` are read."""
    source, right = as_rows(learner, read), 0
    for rows, words in zip(source.split(250), batched(asked, 250), strict=True):
        writer = AnswerWriter(learner, rows, rows != learner.pad)
        written = token_by_token(writer, rows.new_full((len(rows),), learner.pad), learner.end, CONTEXT)
        answers = (learner.tokenizer.decode(row) for row in written.tolist())
        right += sum(answer == word[::-1] for answer, word in zip(answers, words, strict=True))
    return right / len(asked)


@torch.inference_mode()
def draw_attention(learner: Span, words: Sequence[str], path: Path) -> None:
    """How much each letter that is written looks at each that is read, over all heads of the last block."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.4 * len(words), 3.6), layout="constrained")
    for axes, word in zip(figure.subplots(1, len(words), squeeze=False)[0], words, strict=True):
        looks = cross_attention(learner, word).mean(dim=0)
        axes.imshow(looks.numpy(), cmap="Blues", vmin=0, vmax=1)
        axes.set_xticks(range(len(word) + 1), [*word, "end"])
        axes.set_yticks(range(len(word) + 1), [*word[::-1], "end"])
        axes.set_title(word, loc="left", color=draw.INK, fontsize=11)
        axes.set_xlabel("read", color=draw.INK)
        axes.set_ylabel("written", color=draw.INK)
    draw.save(figure, path)


def cross_attention(learner: Span, word: str) -> Tensor:
    """The probabilities ``(heads, n + 1, n + 1)`` of the last block as it writes a word backwards, and its end."""
    source, target = (as_rows(learner, [each])[:, : len(word) + 1] for each in (word, word[::-1]))
    memory = learner.backbone.encode(source)
    last = learner.backbone.decoder.blocks[-1].cross_attention  # type: ignore[union-attr,index]
    asked: list[Tensor] = []
    hook = last.register_forward_pre_hook(lambda module, inputs: asked.append(inputs[0]))
    learner.backbone.decode(begun(learner, target), memory)
    hook.remove()
    probabilities: Tensor = last.probabilities(asked[0], memory)[0]
    return probabilities


def batched(words: Sequence[str], size: int) -> list[Sequence[str]]:
    """The words, so many at a time."""
    return [words[first : first + size] for first in range(0, len(words), size)]
