"""How a model of masked tokens fills in the gaps of a text."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from vitrail.objectives.masked_token import Filled, MaskedToken
from vitrail.recipes.generating.generate import read_prompt
from vitrail.recipes.generating.settings import Generate
from vitrail.train.precision import choose_device, choose_precision, products_in

GUESSES = 5  # that are told of each gap, unless --top-k says how many


def fill_gaps(settings: Generate, learner: MaskedToken) -> list[dict[str, Any]]:
    """The ``prompt``, its ``text`` with the gaps filled in, and for each of the ``gaps`` the likeliest tokens.

    Printed as the text and a table; with ``--json`` not. There is no chance in it.

    Raises :class:`SettingError` for a prompt without gaps, or longer than the context.
    """
    prompt = read_prompt(settings)
    device = choose_device(settings.device)
    dtype = choose_precision(device, "float32" if settings.precision == "auto" else settings.precision)
    with products_in(dtype, device):
        filled = learner.to(device).fill(prompt, settings.top_k or GUESSES)
    if not settings.json:
        console = Console()
        console.print(filled.text, markup=False, highlight=False)
        console.print(as_table(filled))
    gaps = [[{"token": token, "probability": share} for token, share in gap] for gap in filled.guesses]
    return [{"prompt": prompt, "text": filled.text, "gaps": gaps}]


def as_table(filled: Filled) -> Table:
    """The likeliest tokens of each gap, one column a gap."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for number in range(1, len(filled.guesses) + 1):
        table.add_column(f"gap {number}")
        table.add_column("", justify="right")
    for guesses in zip(*filled.guesses, strict=True):
        table.add_row(*(cell for token, share in guesses for cell in (shown(token), f"{share:.1%}")))
    return table


def shown(token: str) -> str:
    """A token as one sees it: spaces and line ends, too."""
    return token.replace("[", r"\[") if token.strip() else repr(token)[1:-1].replace(" ", "␣")
