"""A tiny model, a service of it in this process, and images of all kinds as they are uploaded."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from PIL import Image

from vitrail import models
from vitrail.data.preprocess import Preprocess
from vitrail.serve.app import build_app
from vitrail.serve.describe import description
from vitrail.serve.door import Door
from vitrail.serve.model import Model
from vitrail.serve.service import Limits, Service
from vitrail.tasks import Classification
from vitrail.weights.save import save_description, save_weights

CLASSES = ("ash", "birch", "cedar", "elm", "fir", "hazel")
LIMITS = Limits(megabytes=1, pixels=10_000, images=64, waiting=256, seconds=30)


def a_task(model: str = "vit-nano", **changes: Any) -> Classification:
    """Random weights that are large enough for scores that differ."""
    torch.manual_seed(0)
    shape = {"width": 24, "depth": 2, "heads": 3, "mlp": 48, "image_size": (16, 24), "patch_size": 8}
    backbone = models.create(model, channels=3, **(changes or shape))
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    preprocess = Preprocess(tuple(backbone.config.image_size), mean=(0.5,) * 3, std=(0.5,) * 3)
    task = Classification(model, backbone, CLASSES, preprocess)
    for parameter in task.head.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return task.eval()


def a_photo(seed: int = 0, kind: str = "PNG", mode: str = "RGB", size: tuple[int, int] = (80, 60)) -> bytes:
    """Smooth noise, encoded."""
    noise = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    picture = Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC).convert(mode)
    buffer = io.BytesIO()
    picture.save(buffer, kind)
    return buffer.getvalue()


class Client:
    """Asks the service in this process, as a client would over HTTP."""

    def __init__(self, service: Service, door: Door, lines: list[Any]) -> None:
        self.service, self.door, self.lines = service, door, lines

    def connect(self) -> Any:
        """An asynchronous client."""
        return httpx.AsyncClient(transport=httpx.ASGITransport(self.door), base_url="http://service")

    def together(self, work: Callable[[Any], Any]) -> Any:
        """What the coroutine function ``work`` makes of an asynchronous client."""

        async def run() -> Any:
            async with self.connect() as client:
                return await work(client)

        return asyncio.run(run())

    def request(self, method: str, path: str, **options: Any) -> Any:
        return self.together(lambda client: client.request(method, path, **options))

    def get(self, path: str, **options: Any) -> Any:
        return self.request("GET", path, **options)

    def post(self, path: str, *images: bytes, **options: Any) -> Any:
        """Images as a form, called photo-0.png and so on; or what the options say."""
        if images:
            options["files"] = as_form(images)
        return self.request("POST", path, **options)


def as_form(images: Sequence[bytes]) -> list[tuple[str, tuple[str, bytes]]]:
    return [("image", (f"photo-{number}.png", image)) for number, image in enumerate(images)]


@pytest.fixture(scope="session")
def tiny() -> Callable[..., Classification]:
    """Makes a classification with random weights: ``tiny(model, **changes)``."""
    return a_task


@pytest.fixture(scope="session")
def photo() -> Callable[..., bytes]:
    """Encodes an image: ``photo(seed, kind, mode, size)``."""
    return a_photo


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's folder."""
    folder = tmp_path_factory.mktemp("runs") / "trees"
    task = a_task()
    save_description(task, folder)
    save_weights(task.state_dict(), folder)
    return folder


@pytest.fixture
def start() -> Iterator[Callable[..., Client]]:
    """Starts a service: ``start(model, token=…, batch_size=…, delay=…, examples=…, limits of their own)``."""
    services = []

    def serve(
        model: Model | None = None,
        *,
        token: str | None = None,
        batch_size: int = 8,
        delay: float = 0.0,
        examples: dict[str, Path] | None = None,
        **limits: Any,
    ) -> Client:
        model = model or Model(a_task(), torch.device("cpu"), torch.float32)
        bounds = Limits(**{**LIMITS.__dict__, **limits})
        service = Service(model, batch_size, delay, bounds)
        services.append(service)
        service.warm.result(timeout=60)
        lines: list[Any] = []
        app = build_app(service, description("runs/trees", service, examples or {}), examples or {})
        return Client(service, Door(app, service.measures, token, bounds.megabytes, lines.append), lines)

    yield serve
    for service in services:
        service.close()


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    """A service with generous limits, shared by the tests of a file."""
    service = Service(Model(a_task(), torch.device("cpu"), torch.float32), 8, 0.0, LIMITS)
    service.warm.result(timeout=60)
    lines: list[Any] = []
    app = build_app(service, description("runs/trees", service, {}), {})
    yield Client(service, Door(app, service.measures, None, LIMITS.megabytes, lines.append), lines)
    service.close()
