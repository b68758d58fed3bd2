"""What every request passes on its way in and out: its number, the token, the limit of bytes, the log, the counters."""

from __future__ import annotations

import hmac
import json
import re
import time
import traceback
import uuid
from collections.abc import Callable
from datetime import datetime, timezone
from typing import NamedTuple

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vitrail.console import say
from vitrail.serve.measures import Measures
from vitrail.serve.refusal import GONE, Refusal, too_large

OPEN = ("/", "/health", "/ready", "/docs", "/openapi.json", "/favicon.ico")  # without a token, and /page/...
ROUTES = (*OPEN, "/model", "/metrics", "/predict", "/explain", "/attention", "/view", "/embed")
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
A_NAME = re.compile(r"[\w.-]{1,64}", re.ASCII)  # of a request, as proxies give them


class Line(NamedTuple):
    """A request as the log tells it."""

    method: str
    path: str
    status: int
    milliseconds: float
    request: str

    def as_json(self) -> str:
        return json.dumps({"time": datetime.now(timezone.utc).isoformat(timespec="milliseconds"), **self._asdict()})

    def __str__(self) -> str:
        path = "".join(letter if letter.isprintable() and letter.isascii() else "?" for letter in self.path[:200])
        moment = datetime.now().strftime("%Y-%m-%d %H:%M:%S")
        return f"{moment} {self.method[:10]} {path} {self.status} {self.milliseconds} ms, request {self.request}"


class Door:
    """ASGI middleware around the whole service.

    Args:
        app: what is behind it.
        measures: counts the answers.
        token: what a client must show; None for none.
        megabytes: largest body of a request.
        log: told of every request.
    """

    def __init__(
        self, app: ASGIApp, measures: Measures, token: str | None, megabytes: float, log: Callable[[Line], None]
    ) -> None:
        self.app = app
        self.measures = measures
        self.token = token
        self.megabytes = megabytes
        self.log = log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status, headers = time.perf_counter(), GONE, Headers(scope=scope)
        name = _name(headers.get("x-request-id"))

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                _dress(MutableHeaders(scope=message), name)
            await send(message)

        try:
            await self._let_in(scope, headers, receive, answer)
        except Exception:  # it has been answered with 500
            say(f"request {name} failed:\n{traceback.format_exc()}".rstrip())
        finally:
            self._note(scope, status, time.perf_counter() - began, name)

    async def _let_in(self, scope: Scope, headers: Headers, receive: Receive, send: Send) -> None:
        try:
            self._check_token(scope["path"], headers)
            self._check_length(headers)
        except Refusal as refusal:
            response = JSONResponse({"error": refusal.sentence}, refusal.status, refusal.headers)
            await response(scope, receive, send)
            return
        await self.app(scope, self._counted(receive), send)

    def _check_token(self, path: str, headers: Headers) -> None:
        if self.token is None or path in OPEN or path.startswith("/page/"):
            return
        kind, _, shown = headers.get("authorization", "").partition(" ")
        # both are always compared in full, so that the time that it takes tells nothing
        if not hmac.compare_digest(shown.strip().encode("latin-1"), self.token.encode()) or kind.lower() != "bearer":
            wanted = {"WWW-Authenticate": "Bearer"}
            raise Refusal(401, "this service wants its token, in the header Authorization: Bearer TOKEN.", wanted)

    def _check_length(self, headers: Headers) -> None:
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length[:20]) > self.megabytes * 1e6:
            raise too_large(self.megabytes)

    def _counted(self, receive: Receive) -> Receive:
        """``receive`` that refuses a body as soon as it is too large, whatever length it claimed."""
        received = 0

        async def counting() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self.megabytes * 1e6:
                raise too_large(self.megabytes)
            return message

        return counting

    def _note(self, scope: Scope, status: int, seconds: float, name: str) -> None:
        method, path = scope["method"], scope["path"]
        self.measures.answered(method if method in METHODS else "other", _route(path), status, seconds)
        self.log(Line(method, path, status, round(1000 * seconds, 1), name))


def _name(given: str | None) -> str:
    """What the request is called in the log: as the client or a proxy calls it, if that is harmless."""
    return given if given is not None and A_NAME.fullmatch(given) else uuid.uuid4().hex[:16]


def _route(path: str) -> str:
    """The path without what changes from request to request."""
    if path in ROUTES:
        return path
    first = path.split("/")[1] if "/" in path else ""
    return f"/{first}/…" if first in ("page", "examples") else "other"


def _dress(headers: MutableHeaders, name: str) -> None:
    headers["X-Request-ID"] = name
    headers["X-Content-Type-Options"] = "nosniff"
    headers["Referrer-Policy"] = "no-referrer"
    headers.setdefault("Cache-Control", "no-store")
