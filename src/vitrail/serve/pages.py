"""The routes that a person opens: the web page, its example images, and the list of routes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastapi import FastAPI, HTTPException, Response
from fastapi.responses import FileResponse, HTMLResponse

from vitrail.serve import schemas
from vitrail.serve.documentation import page_of

PAGE = Path(__file__).parent / "page"
STYLE = Path(__file__).parent / "documentation.css"  # of the list of routes
KINDS = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}  # some systems' own tables are wrong
SAFE = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
EXAMPLE: dict[str, Any] = {
    "tags": ["page"],
    "response_class": Response,
    "responses": {
        200: {"description": "the file", "content": {"image/*": {"schema": {"type": "string", "format": "binary"}}}},
        **schemas.LOCKED,
        404: {"model": schemas.Failure, "description": "not one of those that /model lists"},
        422: {"model": schemas.Failure, "description": "no name"},
    },
}
STATIC = {"Content-Security-Policy": SAFE, "Cache-Control": "no-cache"}


def add_pages(app: FastAPI, examples: Mapping[str, Path]) -> None:
    """The web page, its example images, and the list of routes."""

    @app.get("/examples/{name}", summary="An example image", **EXAMPLE)
    async def example(name: str) -> Response:
        if name not in examples:
            raise HTTPException(404)
        return FileResponse(examples[name], headers={"Cache-Control": "no-cache"})

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return HTMLResponse(page_of(app.openapi()), headers=STATIC)

    @app.get("/", include_in_schema=False)
    async def index() -> Response:
        return FileResponse(PAGE / "index.html", headers=STATIC)

    files = {file.name: file for file in PAGE.iterdir() if file.suffix in KINDS} | {"docs.css": STYLE}

    @app.get("/page/{name}", include_in_schema=False)
    async def part(name: str) -> Response:
        if name not in files:
            raise HTTPException(404)
        return FileResponse(files[name], headers=STATIC, media_type=KINDS[files[name].suffix])
