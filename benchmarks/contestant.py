"""One way of computing a model, in a process of its own, which `speed.py` starts and asks for some steps at a time.

It runs in the environment of the library that it measures, and imports nothing of any other. What it is to do comes as
JSON on the command line. Then every line on standard input is a number of steps, answered by their seconds and the most
memory so far, as JSON on a line.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

Step = Callable[[], object]
CLASSES = 1000
TRANSFORMERS = {
    "vit-b16": {"hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072},
    "vit-s16": {"hidden_size": 384, "num_attention_heads": 6, "intermediate_size": 1536},
}
TIMM = {
    "vit-b16": "vit_base_patch16_224",
    "vit-s16": "vit_small_patch16_224",
    "resnet-50": "resnet50",
    "swin-t": "swin_tiny_patch4_window7_224",
}


def ours(model: str, way: str, batch: int, size: int, training: bool) -> Step:
    """As `vitrail evaluate` and `vitrail train` compute: from uint8 images, in the precision that suits the machine."""
    from vitrail.allocator import keep_freed_memory
    from vitrail.recipes.benching.model import answering, opened, random_batch
    from vitrail.train.optim import build_optimizer
    from vitrail.train.precision import choose_precision, products_in

    keep_freed_memory()
    cpu = torch.device("cpu")
    dtype = choose_precision(cpu, way)  # type: ignore[arg-type]
    task: Any = opened(model, size)
    noise = random_batch(task, batch)
    if not training:
        answer = answering(task, cpu, dtype)
        return lambda: answer(noise.images)
    optimizer = build_optimizer(task.train(), "adamw", 1e-4, 0.05)

    def learn() -> object:
        with products_in(dtype, cpu):
            loss = task.loss(noise)["loss"]
        loss.backward()
        torch.nn.utils.clip_grad_norm_(task.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    return learn


def timm(model: str, way: str, batch: int, size: int, training: bool) -> Step:
    """As timm's documentation shows it, and as its users make it faster by hand."""
    import timm as library

    network = library.create_model(TIMM[model], num_classes=CLASSES, **({} if size == 224 else {"img_size": size}))
    return by_hand(network, lambda output: output, way, batch, size, training)


def transformers(model: str, way: str, batch: int, size: int, training: bool) -> Step:
    """The same for Transformers."""
    from transformers import ViTConfig, ViTForImageClassification

    network = ViTForImageClassification(ViTConfig(**TRANSFORMERS[model], image_size=size, num_labels=CLASSES))
    return by_hand(network, lambda output: output.logits, way, batch, size, training)


def by_hand(
    network: torch.nn.Module, logits: Callable[[Any], torch.Tensor], way: str, batch: int, size: int, training: bool
) -> Step:
    """A way of computing: float32 as it comes, autocast, all in bfloat16, the same compiled; with channels last."""
    network.train(training)
    images = torch.randn(batch, 3, size, size)
    if "bfloat16" in way:
        network, images = network.bfloat16(), images.bfloat16()
    if "channels last" in way:
        network = network.to(memory_format=torch.channels_last)
        images = images.to(memory_format=torch.channels_last)
    compute = torch.compile(network) if "compile" in way else network

    def answer() -> object:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=way == "autocast"):
            return compute(images)

    if not training:
        return answer
    labels = torch.randint(0, CLASSES, (batch,))
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, weight_decay=0.05, fused="fused" in way)

    def learn() -> object:
        with torch.autocast("cpu", torch.bfloat16, enabled=way == "autocast"):
            loss = torch.nn.functional.cross_entropy(logits(compute(images)), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    return learn


def resident(field: str) -> int | None:
    """A field of Linux's account of this process, in bytes; None on another system."""
    status = Path("/proc/self/status")
    if not status.is_file():
        return None
    line = next(line for line in status.read_text().splitlines() if line.startswith(f"{field}:"))
    return int(line.split()[1]) * 1024


def main() -> None:
    """Get ready, then answer each line."""
    warnings.simplefilter("ignore")
    asked = json.loads(sys.argv[1])
    torch.set_num_threads(asked["threads"])
    torch.manual_seed(0)
    libraries = {"vitrail": ours, "timm": timm, "transformers": transformers}
    importlib.import_module(asked["library"])
    if asked["library"] == "vitrail":
        importlib.import_module("vitrail.recipes.benching.model")
    before = resident("VmRSS")
    with torch.no_grad() if not asked["training"] else torch.enable_grad():
        step = libraries[asked["library"]](
            asked["model"], asked["way"], asked["batch"], asked["size"], asked["training"]
        )
    for line in sys.stdin:
        seconds = []
        for _ in range(int(line)):
            began = time.perf_counter()
            step()
            seconds.append(time.perf_counter() - began)
        most = resident("VmHWM")
        memory = None if most is None or before is None else most - before
        print(json.dumps({"seconds": seconds, "memory": memory}), flush=True)


if __name__ == "__main__":
    main()
