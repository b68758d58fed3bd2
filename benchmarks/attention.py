"""Where attention as two matrix products and a softmax is faster than PyTorch's fused kernel, on this machine.

`nn/attention.py` chooses between them by the number of keys; its two numbers are read off this table.

    python benchmarks/attention.py            12 heads of 64, into benchmarks/results/attention.md and .json
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vitrail.allocator import keep_freed_memory
from vitrail.bench.machine import in_words, machine
from vitrail.bench.timing import in_turns
from vitrail.nn import attention

CPU = torch.device("cpu")
HEADS, WIDTH = 12, 64
TOKENS = (50, 197, 401, 577, 785, 1025, 1601, 2305, 4097)
SHAPES = [(max(1, 1600 // tokens), tokens) for tokens in TOKENS]  # images, tokens: about as much work each


def products(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return attention._attend_by_products(q, k, v, mask=None, causal=False, scale=None)


def fused(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return torch.nn.functional.scaled_dot_product_attention(q, k, v)


def work(kernel: Callable[..., Tensor], inputs: tuple[Tensor, ...], training: bool) -> Callable[[], object]:
    """A forward pass, in training with the way back; the inputs are views of one product, as in a model."""
    if not training:
        return lambda: kernel(*inputs)
    towards = torch.randn_like(inputs[0])
    return lambda: torch.autograd.grad(kernel(*inputs), inputs, towards)


def measured(images: int, tokens: int, dtype: torch.dtype, training: bool, seconds: float) -> dict[str, Any]:
    """Milliseconds of both, medians of turns."""
    together = torch.randn(images, tokens, 3, HEADS, WIDTH, dtype=dtype)
    q, k, v = (part.requires_grad_(training) for part in together.permute(2, 0, 3, 1, 4).unbind())
    with torch.set_grad_enabled(training):
        ways = {"products": work(products, (q, k, v), training), "fused": work(fused, (q, k, v), training)}
        times = in_turns(ways, seconds, CPU)
    took = {way: round(1000 * float(np.median(each)), 3) for way, each in times.items()}
    named = {"precision": str(dtype).removeprefix("torch."), "mode": "training" if training else "inference"}
    return named | {"images": images, "tokens": tokens} | took


def table(rows: list[dict[str, Any]]) -> Iterator[str]:
    """The figures in Markdown."""
    yield "| precision | mode | images | tokens | two products, ms | fused kernel, ms | fused / products |"
    yield "|---|---|---|---|---|---|---|"
    for row in rows:
        shape = f"{row['precision']} | {row['mode']} | {row['images']} | {row['tokens']}"
        ratio = row["fused"] / row["products"]
        yield f"| {shape} | {row['products']:.2f} | {row['fused']:.2f} | {ratio:.2f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each way at each shape")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "attention.md")
    settings = parser.parse_args()
    keep_freed_memory()
    rows = [
        measured(images, tokens, dtype, training, settings.seconds)
        for dtype in (torch.bfloat16, torch.float32)
        for training in (False, True)
        for images, tokens in SHAPES
    ]
    found, date = machine(), time.strftime("%Y-%m-%d")
    head = ["# Two products against the fused kernel", "", f"{date}; {in_words(found)}.", ""]
    head += [f"`python benchmarks/attention.py --seconds {settings.seconds:g}`; {HEADS} heads of {WIDTH}.", ""]
    settings.out.write_text("\n".join([*head, *table(rows), ""]))
    results = {"date": date, "machine": asdict(found), "rows": rows}
    settings.out.with_suffix(".json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
