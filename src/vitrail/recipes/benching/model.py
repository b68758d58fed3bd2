"""One model in one mode: what it costs, counted, and how fast it is, measured in a process of its own."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from vitrail import models
from vitrail.allocator import keep_freed_memory
from vitrail.bench.flops import flops_of
from vitrail.bench.memory import peak_from_here
from vitrail.bench.peak import Product, products_of, rate_of
from vitrail.bench.timing import LEAST, WARM_UP, seconds_of, spread, undisturbed
from vitrail.data.preprocess import Preprocess
from vitrail.data.sample import Batch
from vitrail.errors import SettingError
from vitrail.nn.inference import ready
from vitrail.recipes.costs import forward_flops
from vitrail.recipes.opened import open_classifier
from vitrail.recipes.settings import Stated
from vitrail.tasks import Classification
from vitrail.tasks.classifier import Classifier
from vitrail.train.loop import Plan, fit
from vitrail.train.precision import products_in
from vitrail.train.threads import threads_for

CLASSES = 1000  # of a model that is named without weights: ImageNet's
LEAST_CALLS = 20  # of single images, however long they take
ENDLESS = 10**9  # steps

Mode = Literal["inference", "training"]


@dataclass(frozen=True)
class Case:
    """What is measured: a model from `vitrail models` or another reference, in one mode."""

    model: str
    mode: Mode
    batch_size: int
    image_size: int | None
    device: torch.device
    dtype: torch.dtype
    seconds: float
    threads: int


@dataclass(frozen=True)
class Cost:
    """What a batch takes by itself, whatever computes it.

    Attributes:
        preprocess: size and channels of the images that the model sees.
        parameters: learned values, the head's included; None if they cannot be seen, as in an exported file.
        flops: operations of a batch; for training those of the backward pass as well. None likewise.
        products: its matrix products and how often each occurs.
    """

    preprocess: Preprocess
    parameters: int | None
    flops: int | None
    products: Counter[Product]


def opened(reference: str, image_size: int | None) -> Classifier:
    """A model of the table with random weights, or what another reference stands for."""
    if _is_elsewhere(reference):
        return open_classifier(reference, Stated(image_size=image_size))
    backbone = models.create(reference, **({} if image_size is None else {"image_size": image_size}))
    size, channels = backbone.config.image_size, backbone.config.channels
    preprocess = Preprocess(size, mean=(0.5,) * channels, std=(0.5,) * channels, channels=channels)
    return Classification(reference, backbone, [str(number) for number in range(CLASSES)], preprocess)


def _is_elsewhere(reference: str) -> bool:
    """Whether a model is a run, a file or published weights, rather than a name of the table."""
    if reference in models.names():
        return False
    return any(mark in reference for mark in ":/\\") or Path(reference).exists() or reference.endswith(".onnx")


def cost_of(case: Case) -> Cost:
    """What a case costs, counted without computing anything; so mistakes are found before anything is measured.

    Raises :class:`SettingError` for an image size that the model cannot read, or an exported file that is to learn.
    """
    with torch.device("cpu" if _is_elsewhere(case.model) else "meta"):
        task = opened(case.model, case.image_size)
    if not isinstance(task, Classification):
        if case.mode == "training":
            raise SettingError(
                f"{case.model} is an exported file, which answers and cannot learn; use --mode inference."
            )
        return Cost(task.preprocess, None, None, Counter())
    with torch.device("meta"):
        twin = Classification.from_json(task.to_json())
        training = case.mode == "training"
        twin.train(training).requires_grad_(training)
        batch = random_batch(twin, case.batch_size)
        try:
            flops = flops_of(lambda: twin.loss(batch)["loss"].backward() if training else twin(batch.images))
            products = products_of(twin.eval(), lambda: twin(batch.images), training=training)
        except RuntimeError as error:
            size = "x".join(map(str, task.preprocess.size))
            raise SettingError(
                f"{case.model} cannot read images of {size} pixels; take another --image-size."
            ) from error
    return Cost(task.preprocess, sum(each.numel() for each in twin.parameters()), flops, products)


def measure(case: Case, cost: Cost, folder: Path) -> dict[str, Any]:
    """All figures of a case; to be called in a new process, so that its memory is the model's.

    ``folder`` is for what training writes.
    """
    keep_freed_memory()
    torch.set_num_threads(case.threads)
    torch.manual_seed(0)
    peak_memory = peak_from_here(case.device)
    task = opened(case.model, case.image_size)
    latencies: list[float] = []
    if case.mode == "inference":
        times, latencies = times_of_inference(task, case)
    else:
        assert isinstance(task, Classification)
        with threads_for(case.batch_size * forward_flops(task.model, **asdict(task.backbone.config))):
            times = times_of_training(task, case, folder)
    peak = peak_memory()
    limit = rate_of(cost.products, case.dtype, case.device, case.seconds / 2) if cost.products else None
    return {
        "images_per_second": asdict(spread([case.batch_size / seconds for seconds in times])),
        "latency_ms": latency(latencies) if latencies else None,
        "peak_memory_bytes": peak,
        "flops_per_second": cost.flops / float(np.median(times)) if cost.flops else None,
        "limit_flops_per_second": limit,
    }


def times_of_inference(task: Classifier, case: Case) -> tuple[list[float], list[float]]:
    """Seconds of each batch, and of each image alone."""
    compute = answering(task, case.device, case.dtype)
    images = random_batch(task, case.batch_size).images.to(case.device)
    one = images[:1].contiguous(memory_format=torch.channels_last)
    batches = seconds_of(lambda: compute(images), case.seconds, case.device)
    alone = seconds_of(lambda: compute(one), case.seconds, case.device, least=LEAST_CALLS, one_by_one=True)
    return batches, alone


def answering(task: Classifier, device: torch.device, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    """From images on the device, ``(B, C, H, W)`` uint8, to logits, as `vitrail evaluate` computes them."""
    ready(task.to(device), dtype)

    def compute(images: Tensor) -> Tensor:
        with torch.inference_mode(), products_in(dtype, device):
            return task(images)

    return compute


def times_of_training(task: Classification, case: Case, folder: Path) -> list[float]:
    """Seconds of each step of the training loop itself, which is given the same batch again and again."""
    names = ("noise",) * case.batch_size
    batch = replace(random_batch(task, case.batch_size), names=names).to(case.device)
    moments: list[float] = []

    def again(start: int, stop: int) -> Iterator[Batch]:
        while True:
            moments.append(time.perf_counter())
            if len(moments) > WARM_UP + LEAST and moments[-1] - moments[WARM_UP] >= case.seconds:
                return
            yield batch

    plan = Plan(ENDLESS, ENDLESS, learning_rate=1e-6, log_every=ENDLESS, save_seconds=float("inf"))
    options: dict[str, Any] = {"validate": dict, "score": task.score, "keep": lambda: None, "folder": folder}
    task.to(case.device).train()
    with undisturbed():
        fit(task, again, plan, device=case.device, dtype=case.dtype, **options)
    return [float(seconds) for seconds in np.diff(moments)[WARM_UP:]]


def random_batch(task: Classifier, count: int) -> Batch:
    """Noise as images, laid out in memory as loaders do it, with a random class each and without names."""
    channels, classes = task.preprocess.channels, len(task.classes)
    images = torch.randint(256, (count, *task.preprocess.size, channels), dtype=torch.uint8).permute(0, 3, 1, 2)
    labels = torch.zeros(count, classes).scatter_(1, torch.randint(classes, (count, 1)), 1.0)
    return Batch(images, (), labels)


def latency(seconds: list[float]) -> dict[str, float]:
    """Percentiles of the milliseconds that calls took."""
    p50, p99 = np.percentile(seconds, [50, 99]) * 1000
    return {"p50": float(p50), "p99": float(p99), "calls": len(seconds)}
