"""The application: its routes, and how it fails."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from vitrail.errors import UserError
from vitrail.serve.pages import add_pages
from vitrail.serve.questions import add_questions
from vitrail.serve.refusal import GONE, Refusal, of_error
from vitrail.serve.service import Service
from vitrail.serve.state import add_state


def build_app(service: Service, described: Mapping[str, Any], examples: Mapping[str, Path]) -> FastAPI:
    """The application.

    Args:
        service: what answers.
        described: the answer of ``GET /model``.
        examples: image files by the name under which they are shown.
    """
    app = FastAPI(
        title="Vitrail",
        summary="A vision model that says what is in images, and where it sees it.",
        version="1",  # of this interface
        docs_url=None,  # FastAPI's own page loads its scripts from elsewhere
        redoc_url=None,
    )
    add_failures(app)
    add_state(app, service, described)
    add_questions(app, service)
    add_pages(app, examples)
    return app


def add_failures(app: FastAPI) -> None:
    """Every failure as ``{"error": "one sentence"}``."""

    def answer(status: int, sentence: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
        return JSONResponse({"error": sentence}, status, headers)

    @app.exception_handler(Refusal)
    async def refused(request: Request, error: Refusal) -> Response:
        return answer(error.status, error.sentence, error.headers)

    @app.exception_handler(UserError)
    async def mistaken(request: Request, error: UserError) -> Response:
        refusal = of_error(error)
        return answer(refusal.status, refusal.sentence)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        return answer(422, f"{first['loc'][-1]}: {first['msg'][:1].lower()}{first['msg'][1:]}.")

    @app.exception_handler(HTTPException)
    async def missing(request: Request, error: HTTPException) -> Response:
        sentences = {404: "there is nothing here; /docs lists what there is.", 405: "this is not done so; see /docs."}
        return answer(error.status_code, sentences.get(error.status_code, str(error.detail)), error.headers)

    @app.exception_handler(ClientDisconnect)
    async def left(request: Request, error: ClientDisconnect) -> Response:
        return Response(status_code=GONE)

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> Response:
        return answer(500, "the service failed; its log says why, beside the request's number in X-Request-ID.")
