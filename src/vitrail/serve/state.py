"""The routes that tell how the service is, and what its model is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST

from vitrail.serve import schemas
from vitrail.serve.refusal import Refusal
from vitrail.serve.service import Service


class Metrics(Response):
    """Text as Prometheus reads it."""

    media_type = CONTENT_TYPE_LATEST


def add_state(app: FastAPI, service: Service, described: Mapping[str, Any]) -> None:
    """How the service is, and what its model is."""

    @app.get("/health", tags=["state"], summary="Whether the process lives", response_model=schemas.Status)
    async def health() -> Response:
        return JSONResponse({"status": "alive"})

    @app.get(
        "/ready",
        tags=["state"],
        summary="Whether the model is loaded and warm",
        response_model=schemas.Status,
        responses={503: {"model": schemas.Failure, "description": "not yet, or no longer"}},
    )
    async def ready() -> Response:
        if service.ready:
            return JSONResponse({"status": "ready"})
        raise Refusal(
            503, "the service is stopping." if service.stopping else "the model is warming up.", {"Retry-After": "1"}
        )

    @app.get(
        "/metrics", tags=["state"], summary="Counters for Prometheus", response_class=Metrics, responses=schemas.LOCKED
    )
    async def metrics() -> Response:
        return Metrics(service.measures.text())

    @app.get(
        "/model",
        tags=["state"],
        summary="What the model is",
        response_model=schemas.Described,
        responses=schemas.LOCKED,
    )
    async def model() -> Response:
        return JSONResponse(described)
