"""A modern Hopfield network holds 1,000 patterns of 64 features, where a classical one holds about nine."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vitrail.console import say
from vitrail.data.dataset import open_dataset
from vitrail.data.rng import torch_seed
from vitrail.errors import SettingError
from vitrail.metrics import draw
from vitrail.nn.hopfield import energy, retrieve, update
from vitrail.proofs.classifier import pixels_and_classes
from vitrail.proofs.proof import Proof

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PATTERNS, WIDTH = 1000, 64
MOST_SWEEPS = 100  # of a classical network, which settles after some ten
KINDS = {0.25: "β = 0.25: the mean of all", 2.0: "β = 2: the mean of some", 40.0: "β = 40: every pattern"}
DIGITS = 10  # that are drawn


def prove(data: Path | None, out: Path, seed: int = 0) -> Proof:
    """The share of random patterns of ±1, half of each erased, that come back with every sign right after one update.

    β is 1; the norm of a pattern is √64. The baseline is the network of Hopfield (1982) with the same patterns, which
    runs until it rests. Pictures show the kinds of fixed points, and both networks on digits.
    """
    began = time.perf_counter()
    modern, classical = shares_retrieved(seed)
    seconds = round(time.perf_counter() - began, 1)
    draw_kinds(out / "kinds.png")
    try:
        draw_digits(out / "digits.png")
        say(f"hopfield: pictures are in {out}")
    except SettingError as error:
        say(f"hopfield: no picture of digits: {error}")
    what = f"patterns of {PATTERNS:,} retrieved in one step"
    return Proof("hopfield", what, measured=modern, baseline=classical, bar=1.0, seconds=seconds)


def shares_retrieved(seed: int) -> tuple[float, float]:
    """Of the modern network, and of the classical one."""
    torch.manual_seed(torch_seed(seed, "init"))
    patterns = torch.randn(PATTERNS, WIDTH).sign()
    erased = patterns.masked_fill(torch.rand(PATTERNS, WIDTH).argsort(dim=1) < WIDTH // 2, 0)
    answers = retrieve(erased, patterns, beta=1.0), settled(erased, patterns)
    modern, classical = ((answer.sign() == patterns).all(dim=1).double().mean().item() for answer in answers)
    return modern, classical


def settled(states: Tensor, patterns: Tensor) -> Tensor:
    """Where a classical network with these patterns ``(N, d)`` of signs comes to rest from each state ``(S, d)``.

    Its weights are Hebb's, its neurons are updated in turn (Hopfield 1982).
    """
    weights = patterns.T @ patterns / patterns.shape[1]
    weights.fill_diagonal_(0)
    states = states.clone()
    for _ in range(MOST_SWEEPS):
        before = states.clone()
        for neuron in range(patterns.shape[1]):
            field = states @ weights[:, neuron]
            states[:, neuron] = torch.where(field == 0, states[:, neuron], field.sign())
        if torch.equal(before, states):
            break
    return states


def draw_kinds(path: Path) -> None:
    """The three kinds of fixed points of one memory of six patterns in the plane, at three β, over the energy."""
    from matplotlib.figure import Figure

    angles = torch.tensor([70.0, 90.0, 110.0, 200.0, 220.0, 330.0]).deg2rad()
    patterns = 1.5 * torch.stack([angles.cos(), angles.sin()], dim=1)
    figure = Figure(figsize=(10.5, 3.9), layout="constrained")
    for axes, beta in zip(figure.subplots(1, len(KINDS)), KINDS, strict=True):
        _draw_energy(axes, patterns, beta)
        axes.set_title(KINDS[beta], loc="left", color=draw.INK, fontsize=11)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    draw.save(figure, path)


def _draw_energy(axes: Axes, patterns: Tensor, beta: float) -> None:
    """The energy as colour, low where it is dark, the patterns, the ways of some states, and where they end."""
    side = torch.linspace(-2.1, 2.1, 121)
    grid = torch.cartesian_prod(side, side)
    axes.contourf(side, side, energy(grid, patterns, beta).reshape(121, 121).T, levels=24, cmap="Blues_r")
    coarse = torch.linspace(-1.9, 1.9, 7)
    way = [torch.cartesian_prod(coarse, coarse)]
    for _ in range(300):
        way.append(update(way[-1], patterns, beta))
    ways = torch.stack(way).permute(2, 0, 1)  # each column of both coordinates is a line
    axes.plot(*ways, color=draw.PALE, linewidth=0.8, label=["a state's way", *[None] * (ways.shape[2] - 1)])
    axes.plot(*patterns.T, "o", color=draw.ORANGE, markersize=7, label="pattern")
    axes.plot(*way[-1].T, "+", color=draw.INK, markersize=13, markeredgewidth=2, label="fixed point")
    axes.set(xticks=[], yticks=[], aspect="equal", xlim=(-2.1, 2.1), ylim=(-2.1, 2.1))


def draw_digits(path: Path) -> None:
    """Handwritten digits without their lower halves, and what memories of all 1,797 make of them.

    Raises :class:`SettingError` if scikit-learn, which has the digits, is not installed.
    """
    from matplotlib.figure import Figure

    splits = open_dataset("digits").splits.values()
    pixels = torch.cat([torch.from_numpy(pixels_and_classes(split)[0]) for split in splits])
    centred = pixels - pixels.mean(dim=0)
    patterns = centred / centred.norm(dim=1, keepdim=True) * WIDTH**0.5
    erased = patterns.clone()
    erased[:, WIDTH // 2 :] = 0
    shown = torch.linspace(0, len(patterns) - 1, DIGITS).long()
    modern, signs = retrieve(erased, patterns, beta=4.0), patterns.sign()
    themselves = torch.cdist(modern, patterns).argmin(dim=1) == torch.arange(len(patterns))
    say(f"hopfield: {themselves.double().mean():.1%} of {len(patterns):,} digits without their lower halves come back")
    rows = {
        "stored": patterns,
        "asked with": erased,
        "modern, one step": modern,
        "classical": settled(signs[shown].masked_fill(erased[shown] == 0, 0), signs),
    }
    figure = Figure(figsize=(DIGITS * 0.8 + 1.4, len(rows) * 0.8 + 0.2), layout="constrained")
    for (name, images), places in zip(rows.items(), figure.subplots(len(rows), DIGITS), strict=True):
        some = images if len(images) == DIGITS else images[shown]
        for axes, image in zip(places, some.reshape(DIGITS, 8, 8).numpy(), strict=True):
            axes.imshow(image, cmap="Greys", vmin=-1.5, vmax=2.5)
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
        places[0].set_ylabel(name, rotation=0, ha="right", va="center", color=draw.INK, fontsize=10)
    draw.save(figure, path)
