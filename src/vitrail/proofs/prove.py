"""Prove: run the proofs that each system works, and compare each with its bar and its baseline."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from vitrail.console import say
from vitrail.errors import UnknownName
from vitrail.proofs import (
    bert,
    bert_finetune,
    bit,
    deit,
    dino,
    explain,
    gpt,
    hopfield,
    igpt,
    lenet,
    mae,
    pvt,
    resnet,
    resume,
    rope,
    simclr,
    swin,
    t2t,
    t5,
    transformer,
    vit,
)
from vitrail.proofs.proof import Proof
from vitrail.proofs.settings import Prove

PROOFS: dict[str, Callable[[Path | None, Path, int], Proof]] = {
    "lenet": lenet.prove,
    "resnet": resnet.prove,
    "bit": bit.prove,
    "vit": vit.prove,
    "deit": deit.prove,
    "swin": swin.prove,
    "pvt": pvt.prove,
    "t2t": t2t.prove,
    "rope": rope.prove,
    "gpt": gpt.prove,
    "bert": bert.prove,
    "bert-finetune": bert_finetune.prove,
    "t5": t5.prove,
    "transformer": transformer.prove,
    "hopfield": hopfield.prove,
    "mae": mae.prove,
    "mae-probe": mae.prove_probe,
    "dino": dino.prove,
    "simclr": simclr.prove,
    "igpt": igpt.prove,
    "igpt-completion": igpt.prove_completion,
    "igpt-probe": igpt.prove_probe,
    "explain": explain.prove,
    "resume": resume.prove,
}


def prove(settings: Prove) -> list[dict[str, Any]]:
    """Run the proofs one after the other; the figures of each as a dictionary."""
    for name in settings.names:
        if name not in PROOFS:
            raise UnknownName("proof", name, PROOFS)
    answers = []
    with tempfile.TemporaryDirectory(prefix="vitrail-") as temporary:
        for name, seed in itertools.product(settings.names or PROOFS, settings.seeds):
            folder = settings.out or Path(temporary)
            if len(settings.seeds) > 1:
                folder = folder / f"seed-{seed}"
            proof = PROOFS[name](settings.data, folder / name, seed)
            say(in_words(proof))
            answers.append({**asdict(proof), "seed": seed, "passed": proof.passed})
    if not settings.json:
        Console().print(as_table(answers))
    return answers


def in_words(proof: Proof) -> str:
    """The outcome as one line."""
    if proof.measured is None:
        return f"{proof.name}: skipped, {proof.reason}"
    return (
        f"{proof.name}: {'passed' if proof.passed else 'FAILED'}, {proof.what} {proof.measured:.4g} "
        f"(bar {proof.bar:.4g}, baseline {proof.baseline:.4g}) in {proof.seconds:.0f} s"
    )


def as_table(answers: list[dict[str, Any]]) -> Table:
    """Measured, bar, baseline and seconds of each proof and seed."""
    table = Table("proof", "seed", "what", box=None, header_style="bold", pad_edge=False)
    for column in ("measured", "bar", "baseline", "seconds"):
        table.add_column(column, justify="right")
    table.add_column("")
    for answer in answers:
        figures = ("-" if answer[key] is None else f"{answer[key]:.4g}" for key in ("measured", "bar", "baseline"))
        verdict = {True: "passed", False: "[red]FAILED[/]", None: f"skipped: {answer['reason']}"}[answer["passed"]]
        named = (answer["name"], str(answer["seed"]), answer["what"])
        table.add_row(*named, *figures, f"{answer['seconds']:.0f}", verdict)
    return table
