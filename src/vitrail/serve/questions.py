"""The routes that are asked about images: each reads them, has them computed, and answers within the limits."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Literal, TypeVar

from fastapi import FastAPI, Query, Request, Response
from fastapi.responses import JSONResponse
from starlette.requests import ClientDisconnect

from vitrail.explain.look import Look
from vitrail.serve import schemas
from vitrail.serve.pictures import heat_png, overlay_png, png
from vitrail.serve.refusal import too_slow
from vitrail.serve.service import Service
from vitrail.serve.uploads import Upload, read_uploads

T = TypeVar("T")

Top = Annotated[int, Query(ge=1, description="labels for each image")]
Class = Annotated[str | None, Query(alias="class", description="its name or number; left out: the most probable one")]
Method = Annotated[str, Query(description="one of those that /model lists")]
Layer = Annotated[int | None, Query(ge=1, description="of those with attention, counted from 1; left out: the last")]
Head = Annotated[int | None, Query(ge=1, description="counted from 1; left out: the mean of all")]
Format = Annotated[
    Literal["png", "heat", "json"], Query(description="the map over the image, the map alone, or its numbers")
]


def add_questions(app: FastAPI, service: Service) -> None:
    """What is asked of images."""
    limits = service.limits

    async def answered(request: Request, most: int, work: Callable[[list[Upload]], Awaitable[T]]) -> T:
        """What ``work`` makes of the images of a request, of which there are at most ``most``, within the limits."""

        async def within_room() -> T:
            with service.room(1):  # before anything is read of the body
                uploads = await read_uploads(request, most)
                with service.room(len(uploads) - 1):
                    return await unless_gone(request, work(uploads))

        try:
            return await asyncio.wait_for(within_room(), limits.seconds)
        except asyncio.TimeoutError:
            raise too_slow(limits.seconds) from None

    @app.post("/predict", summary="Labels and scores", **schemas.SEVERAL, response_model=schemas.Predictions)
    async def predict(request: Request, top: Top = 5) -> Response:
        began = time.perf_counter()
        answers = await answered(request, limits.images, lambda uploads: service.predictions(uploads, top))
        return JSONResponse({"predictions": answers, "milliseconds": milliseconds(began)})

    @app.post("/embed", summary="The vector of each image", **schemas.SEVERAL, response_model=schemas.Embeddings)
    async def embed(request: Request) -> Response:
        vectors, errors = await answered(request, limits.images, service.embeddings)
        width = service.model.looked_into().backbone.width
        return JSONResponse({"embeddings": vectors, "errors": errors, "width": width})

    @app.post("/view", summary="What the model sees of an image", **schemas.PICTURE)
    async def view(request: Request) -> Response:
        async def work(uploads: Sequence[Upload]) -> Response:
            image = await service.view(uploads[0])
            size = {"X-Image-Height": str(image.shape[0]), "X-Image-Width": str(image.shape[1])}
            return Response(await service.read(lambda: png(image)), media_type="image/png", headers=size)

        return await answered(request, 1, work)

    @app.post("/explain", summary="Where an image speaks for a class", **schemas.HEAT)
    async def explain(
        request: Request,
        method: Method = "attention",
        of: Class = None,
        layer: Layer = None,
        head: Head = None,
        format: Format = "png",
    ) -> Response:
        async def work(uploads: Sequence[Upload]) -> Response:
            plain = method.replace(" ", "+")  # which is what a + in an address means, and gradcam++ has two
            heat = await service.heat(uploads[0], plain, of, Look(layer, head))
            if format == "json":
                rows = [[round(share, 4) for share in row] for row in heat.map.tolist()]
                named = {"label": heat.label, "score": heat.score, "class": heat.number, "method": plain}
                return JSONResponse({**named, "map": rows})
            if format == "heat":
                return Response(await service.read(lambda: heat_png(heat.map)), media_type="image/png")
            image = await service.view(uploads[0])
            return Response(await service.read(lambda: overlay_png(image, heat.map)), media_type="image/png")

        return await answered(request, 1, work)

    @app.post("/attention", summary="Who looks where in an image", **schemas.ONE, response_model=schemas.Attention)
    async def attention(request: Request, layer: Layer = None) -> Response:
        return JSONResponse(await answered(request, 1, lambda uploads: service.attention(uploads[0], layer)))


async def unless_gone(request: Request, work: Awaitable[T]) -> T:
    """The result of ``work``, which is cancelled when the client leaves. Raises :class:`ClientDisconnect` then.

    The body of the request has been read.
    """
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(request.receive())  # what comes after the body is that the client leaves
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        working.cancel()
        leaving.cancel()


def milliseconds(began: float) -> float:
    """Since ``began``, in `time.perf_counter`'s seconds."""
    return round(1000 * (time.perf_counter() - began), 1)
