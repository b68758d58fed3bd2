"""How a model that reads and writes answers a text, token by token or by beam search; a text with gaps is filled in."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from vitrail.console import progress, say
from vitrail.errors import SettingError
from vitrail.nn.beam import Answer, beam_search, token_by_token
from vitrail.nn.sampling import sample
from vitrail.objectives.span import AnswerWriter, Span
from vitrail.recipes.generating.generate import read_prompt
from vitrail.recipes.generating.settings import Generate
from vitrail.train.precision import choose_device, choose_precision, products_in

GAP = re.compile(r"<extra_id_\d+>")


@torch.inference_mode()
def generate_sequence(settings: Generate, learner: Span) -> list[dict[str, Any]]:
    """``count`` answers, the best first.

    Each has its ``prompt``, the ``text`` that was written, the prompt ``filled`` with it where that has gaps, its
    number of ``tokens``, whether it ``ended``, and its ``score`` where there was a search. Without ``--json`` what is
    filled is printed, or the text.

    Raises :class:`SettingError` for a prompt that is empty or too long, or for more answers than there can be.
    """
    check(settings)
    prompt = read_prompt(settings).removesuffix("\n")  # which standard input ends with
    ids = prompt_ids(prompt, learner)
    device = choose_device(settings.device)
    most = min(settings.tokens, learner.backbone.config.context)
    learner = learner.to(device)
    dtype = choose_precision(device, settings.precision)
    with products_in(dtype, device), progress("generating", most, unit="token") as bar:
        answers = answered(settings, learner, torch.tensor([*ids, learner.end], device=device), most, bar)
    told = [as_json(learner, prompt, answer) for answer in answers]
    if not settings.json:
        print("\n".join(each["filled"] or each["text"] for each in told))
    return told


def check(settings: Generate) -> None:
    """Raises :class:`SettingError` for settings that contradict each other."""
    if settings.beams > 1 and settings.temperature:
        raise SettingError("--beams searches and --temperature draws; give one of them.")
    if settings.count > settings.beams and not settings.temperature:
        beams = "1 beam has" if settings.beams == 1 else f"{settings.beams} beams have"
        raise SettingError(
            f"{beams} no {settings.count} answers: give more --beams, or draw them, with --temperature 1."
        )


def prompt_ids(prompt: str, learner: Span) -> list[int]:
    """The prompt's tokens, which must not be cut: a gap, or what is asked for, could be in the rest."""
    ids = learner.tokenizer.encode(prompt)
    if not ids:
        raise SettingError("the prompt is empty; give the model a text to answer.")
    context = learner.backbone.config.context
    if len(ids) >= context:
        raise SettingError(
            f"the prompt has {len(ids) + 1:,} tokens with its end, the model reads {context:,} at most; shorten it."
        )
    if unknown := ids.count(-1 if learner.tokenizer.unknown is None else learner.tokenizer.unknown):
        say(f"The tokenizer does not know {unknown:,} token{'s' * (unknown > 1)} of the prompt; they are read as such.")
    return ids


def answered(settings: Generate, learner: Span, source: Tensor, most: int, bar: Callable[[int], None]) -> list[Answer]:
    """At most ``count`` answers to what is read, ``(M,)``; the score of what was drawn is not known, and is 0."""
    known = len(learner.tokenizer)
    if settings.temperature:
        first = source.new_full((settings.count,), learner.pad)
        writer = Counted(AnswerWriter(learner, source.expand(settings.count, -1)), known, bar)
        draw = partial(
            sample,
            generator=torch.Generator().manual_seed(settings.seed),
            temperature=settings.temperature,
            top_k=settings.top_k,
            top_p=settings.top_p,
        )
        rows = token_by_token(writer, first, learner.end, most, draw).tolist()
        return [Answer(tuple(row[: row.index(learner.end) + 1] if learner.end in row else row), 0.0) for row in rows]
    writer = Counted(AnswerWriter(learner, source.unsqueeze(0)), known, bar)
    first = source.new_full((1,), learner.pad)
    return beam_search(writer, first, learner.end, most, beams=settings.beams)[: settings.count]


class Counted:
    """A writer that says how far it is, and writes no token beyond the tokenizer's.

    A model may have more of them: vocabularies are filled up to round numbers.
    """

    def __init__(self, writer: AnswerWriter, known: int, bar: Callable[[int], None]) -> None:
        self.writer = writer
        self.known = known
        self.bar = bar
        self.steps = 0

    def step(self, last: Tensor) -> Tensor:
        self.steps += 1
        self.bar(self.steps)
        return self.writer.step(last)[:, : self.known]

    def select(self, rows: Tensor) -> None:
        self.writer.select(rows)


def as_json(learner: Span, prompt: str, answer: Answer) -> dict[str, Any]:
    """One answer, as a program reads it."""
    written = [index for index in answer.ids if index not in (learner.end, learner.pad)]
    return {
        "prompt": prompt,
        "text": learner.tokenizer.decode(written, keep_special=True),
        "filled": filled(prompt, fillings(written, learner)) if GAP.search(prompt) else None,
        "tokens": len(answer.ids),
        "ended": answer.ids[-1] == learner.end,
        "score": answer.score or None,
    }


def fillings(written: list[int], learner: Span) -> dict[str, str]:
    """What was written for each gap, by its sentinel."""
    found: dict[str, list[int]] = {}
    sentinel = ""  # what comes before the first one belongs to none
    for index in written:
        if index in learner.sentinels:
            sentinel = learner.tokenizer.token(index)
            found.setdefault(sentinel, [])
        else:
            found.setdefault(sentinel, []).append(index)
    return {sentinel: learner.tokenizer.decode(ids) for sentinel, ids in found.items()}


def filled(prompt: str, answers: dict[str, str]) -> str:
    """The prompt with the answers in its gaps; a gap without one stays.

    Where a space stands before a gap an answer that begins with one does not add another.
    """

    def answer(gap: re.Match[str]) -> str:
        text = answers.get(gap[0], gap[0])
        return text.lstrip() if prompt[: gap.start()].endswith((" ", "\n")) else text

    return GAP.sub(answer, prompt)
