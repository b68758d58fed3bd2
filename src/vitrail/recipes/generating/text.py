"""How a model of the next token writes on: token by token, each drawn by what the model says of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from vitrail.console import progress, say
from vitrail.data.text.tokenizer import Tokenizer
from vitrail.errors import SettingError
from vitrail.nn.sampling import sample
from vitrail.objectives.next_token import NextToken
from vitrail.recipes.generating.generate import read_prompt
from vitrail.recipes.generating.settings import Generate
from vitrail.train.precision import choose_device, choose_precision, products_in

TEMPERATURE = 0.8  # a little surer than the model is, which reads better
FORGOTTEN = 8  # when the context is full, one of so many of its tokens is
BETWEEN = "\n" + 80 * "-"  # one text and the next


def generate_text(settings: Generate, learner: NextToken) -> list[dict[str, Any]]:
    """``count`` texts, each with its ``prompt``, the ``text`` that follows, its ``tokens``, and whether it ``ended``.

    One text is printed as it is written, several when all are; with ``--json`` none. The texts end where the model ends
    one, else after ``settings.tokens``.

    Raises :class:`SettingError` for an empty prompt or beams, :class:`DataError` for characters that have no token.
    """
    prompt = read_prompt(settings)
    ids = prompt_ids(prompt, learner, settings)
    device = choose_device(settings.device)
    # One token at a time is as fast as weights are read: to turn them into bfloat16 each time costs more than it saves.
    dtype = choose_precision(device, "float32" if settings.precision == "auto" else settings.precision)
    choose = partial(
        sample,
        generator=torch.Generator().manual_seed(settings.seed),
        temperature=TEMPERATURE if settings.temperature is None else settings.temperature,
        top_k=settings.top_k,
        top_p=settings.top_p,
    )
    learner = learner.to(device)
    given = torch.tensor([ids] * settings.count, device=device)
    written: list[list[int]] = [[] for _ in range(settings.count)]
    with products_in(dtype, device):
        steps = collected(new_tokens(learner, given, choose), written, learner.tokenizer.end, settings.tokens)
        if settings.count == 1 and not settings.json:
            print(prompt, end="", flush=True)
            for piece in pieces(learner.tokenizer, ids, (written[0] for _ in steps)):
                print(piece, end="", flush=True)
            print()
        else:
            with progress("generating", settings.tokens, unit="token") as advance:
                for done in steps:
                    advance(done)
    answers = [answer(learner.tokenizer, prompt, ids, new) for new in written]
    if settings.count > 1 and not settings.json:
        print(f"{BETWEEN}\n".join(prompt + each["text"] for each in answers))
    return answers


def prompt_ids(prompt: str, learner: NextToken, settings: Generate) -> list[int]:
    """The prompt's tokens; says so if the model will not see all of the text at once."""
    if settings.beams > 1:
        raise SettingError(
            "--beams is for models with an encoder, whose answers end; this one draws: set --temperature."
        )
    ids = learner.tokenizer.encode(prompt)
    if not ids:
        raise SettingError("the prompt is empty; give the model at least one character to go on from.")
    context = learner.backbone.config.context
    if len(ids) > context:
        say(f"The prompt has {len(ids):,} tokens; the model sees the last {context:,} of them.")
    elif len(ids) + settings.tokens > context:
        say(f"The model sees {context:,} tokens at once: as the text grows longer it forgets the first ones.")
    return ids


@torch.inference_mode()
def new_tokens(learner: NextToken, ids: Tensor, choose: Callable[[Tensor], Tensor]) -> Iterator[Tensor]:
    """Endlessly the next token ``(B,)`` of each row of ``ids (B, T)``, as ``choose(logits (B, V))`` takes it.

    What was computed of a token is kept. When the context is full its oldest eighth is forgotten, and the others, which
    now stand at other places, are computed again.
    """
    backbone, known = learner.backbone, len(learner.tokenizer)
    context = backbone.config.context
    ids = ids[:, -context:]
    cache, unread = backbone.new_cache(), ids
    while True:
        tokens = backbone(unread, cache=cache).tokens[:, -1]
        chosen = choose(learner.logits(tokens)[:, :known])  # a vocabulary may be filled up to a round number
        yield chosen
        unread = chosen.unsqueeze(1)
        ids = torch.cat([ids, unread], dim=1)
        if ids.shape[1] > context:
            ids = ids[:, -max(1, context - context // FORGOTTEN) :]
            cache, unread = backbone.new_cache(), ids


def collected(steps: Iterator[Tensor], written: list[list[int]], end: int | None, most: int) -> Iterator[int]:
    """Put each row's new tokens into ``written`` until it ends, at most so many; yields how many steps are done."""
    going = set(range(len(written)))
    for done in range(1, most + 1):
        tokens = next(steps).tolist()
        for row in sorted(going):
            written[row].append(tokens[row])
            if tokens[row] == end:
                going.remove(row)
        yield done
        if not going:
            return


def pieces(tokenizer: Tokenizer, prompt: list[int], texts: Iterable[list[int]]) -> Iterator[str]:
    """What each of the growing lists of tokens adds to the text; a character is given when all its bytes are there."""
    told, text = len(tokenizer.decode(prompt)), ""
    for tokens in texts:
        text = tokenizer.decode([*prompt, *tokens])
        if not text.endswith("\N{REPLACEMENT CHARACTER}"):
            yield text[told:]
            told = len(text)
    yield text[told:]


def answer(tokenizer: Tokenizer, prompt: str, ids: list[int], new: list[int]) -> dict[str, Any]:
    """One text, as a program reads it."""
    before = tokenizer.decode(ids)
    text = tokenizer.decode([*ids, *new])[len(before) :]
    return {"prompt": prompt, "text": text, "tokens": len(new), "ended": bool(new) and new[-1] == tokenizer.end}
