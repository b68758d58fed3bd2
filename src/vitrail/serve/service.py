"""A model that many ask at once: some threads decode their images, one computes, and nobody waits without limit."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from vitrail.data.read import decode
from vitrail.data.sample import Image
from vitrail.errors import UnreadableImage
from vitrail.explain.look import Look
from vitrail.explain.seen import as_seen
from vitrail.serve.batching import Batcher
from vitrail.serve.measures import Measures
from vitrail.serve.model import Heat, Model
from vitrail.serve.refusal import busy
from vitrail.serve.uploads import Upload

T = TypeVar("T")

MOST_READERS = 8  # threads that decode


@dataclass(frozen=True)
class Limits:
    """What a client may ask for, and how much all of them together.

    Attributes:
        megabytes: of the body of a request.
        pixels: of an image.
        images: in a request.
        waiting: images in the service at once, from upload to answer.
        seconds: until a request is answered.
    """

    megabytes: float
    pixels: int
    images: int
    waiting: int
    seconds: float


class Service:
    """A `Model` with a queue.

    Args:
        model: what computes.
        batch_size: most images computed at once.
        delay: seconds for which an image waits for others.
        limits: what may be asked for.
    """

    def __init__(self, model: Model, batch_size: int, delay: float, limits: Limits) -> None:
        self.model, self.limits = model, limits
        self.inside = 0
        self.stopping = False
        self.measures = Measures(waiting=lambda: len(self.batcher), inside=lambda: self.inside)
        self.batcher = Batcher(batch_size, delay, self.measures.computed)
        self.readers = ThreadPoolExecutor(min(MOST_READERS, os.cpu_count() or 1), thread_name_prefix="reader")
        self.warm = self.batcher.submit(_warm_up, (model, batch_size))

    @property
    def ready(self) -> bool:
        """Whether the model has computed once, and nobody has asked to stop."""
        return self.warm.done() and self.warm.exception() is None and not self.stopping

    def close(self) -> None:
        """Finish what is in flight, and end the threads."""
        self.stopping = True
        self.batcher.close()
        self.readers.shutdown()

    @contextmanager
    def room(self, images: int) -> Iterator[None]:
        """Room for so many images while the context is open. Raises :class:`Refusal` where there is none."""
        if self.inside + images > self.limits.waiting:
            raise busy(self.inside)
        self.inside += images
        try:
            yield
        finally:
            self.inside -= images

    async def predictions(self, uploads: Sequence[Upload], top: int) -> list[dict[str, Any]]:
        """For each image what ``vitrail predict --json`` says of it. A single one that is unreadable raises."""

        async def one(upload: Upload) -> Any:
            return await self._computed(self.model.predict, (await self._prepared(upload), top))

        return [
            {"image": upload.name, "predictions": [], "error": answer.reason}
            if isinstance(answer, UnreadableImage)
            else {"image": upload.name, "predictions": [asdict(scored) for scored in answer], "error": None}
            for upload, answer in zip(uploads, await _each(one, uploads), strict=True)
        ]

    async def embeddings(self, uploads: Sequence[Upload]) -> tuple[list[list[float] | None], list[str | None]]:
        """For each image its vector, or None, and why it has none. A single one that is unreadable raises."""
        self.model.looked_into()

        async def one(upload: Upload) -> Any:
            return await self._computed(self.model.embed, await self._prepared(upload))

        answers = await _each(one, uploads)
        reasons = [answer.reason if isinstance(answer, UnreadableImage) else None for answer in answers]
        return [None if isinstance(answer, UnreadableImage) else answer for answer in answers], reasons

    async def heat(self, upload: Upload, method: str, of: str | None, look: Look) -> Heat:
        """Where an image speaks for a class, given by name or number; None for the most probable one."""
        number = None if of is None else self.model.number(of)
        image = await self._prepared(upload)
        heat: Heat = await self._computed(lambda images: [self.model.heat(images[0], method, number, look)], image)
        return heat

    async def attention(self, upload: Upload, layer: int | None) -> dict[str, Any]:
        """Who looks where in an image."""
        image = await self._prepared(upload)
        answer: dict[str, Any] = await self._computed(lambda images: [self.model.attention(images[0], layer)], image)
        return answer

    async def view(self, upload: Upload) -> Image:
        """What the model sees of an image, ``(H, W, 1 or 3)`` uint8, as sharp as the image is."""
        return await self.read(lambda: as_seen(self.model.task.preprocess, self._decoded(upload)))

    async def read(self, work: Callable[[], T]) -> T:
        """What one of the threads that decode makes of it."""
        return await asyncio.get_running_loop().run_in_executor(self.readers, work)

    async def _prepared(self, upload: Upload) -> Image:
        return await self.read(lambda: self.model.task.preprocess.view(self._decoded(upload))[0])

    def _decoded(self, upload: Upload) -> Image:
        try:
            return decode(upload.encoded(), upload.name, self.limits.pixels)
        except UnreadableImage:
            self.measures.unreadable.inc()
            raise

    async def _computed(self, work: Callable[[Sequence[Any]], Sequence[Any]], given: Any) -> Any:
        return await asyncio.wrap_future(self.batcher.submit(work, given))


def _warm_up(asked: Sequence[tuple[Model, int]]) -> Sequence[None]:
    for model, batch_size in asked:
        model.warm_up(batch_size)
    return [None]


async def _each(work: Callable[[Upload], Awaitable[Any]], uploads: Sequence[Upload]) -> list[Any]:
    """The answer for each upload, or the :class:`UnreadableImage` that it is; a single one of those is raised."""
    if len(uploads) == 1:
        return [await work(uploads[0])]

    async def guarded(upload: Upload) -> Any:
        try:
            return await work(upload)
        except UnreadableImage as error:
            return error

    tasks = [asyncio.ensure_future(guarded(upload)) for upload in uploads]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:  # of the others, where one of them failed
            task.cancel()
