"""The HTTP server: it listens at an address, and stops when a signal asks, once everything in flight is answered."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import uvicorn
from starlette.types import ASGIApp

from vitrail.errors import SettingError
from vitrail.serve.service import Service

CONNECTIONS = 2048  # that wait to be accepted
LAST = 5.0  # seconds beyond a request's time limit, in which the last connections may close


@contextmanager
def bound(host: str, port: int) -> Iterator[socket.socket]:
    """A socket with this address, which does not listen yet. Raises :class:`SettingError` if it cannot be had."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (socket.gaierror, UnicodeError) as error:
        raise SettingError(f"there is no host '{host}'; --host 127.0.0.1 is this machine alone.") from error
    with socket.socket(family, kind, protocol) as listener:
        if os.name != "nt":  # on Windows the option lets two programs share a port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(address)
        except OSError as error:
            reason = (error.strerror or "").lower()
            raise SettingError(
                f"{host}:{port} cannot be had: {reason}; give another --host, or another --port (0 for any)."
            ) from error
        yield listener


def address_of(listener: socket.socket) -> str:
    """Where a browser on this machine finds it."""
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{host}:{port}"


def run(app: ASGIApp, listener: socket.socket, service: Service, started: Callable[[str], None]) -> int:
    """Answer until a signal asks to stop, and then what is in flight; returns the signal's number, or 0.

    ``started`` is told the address once it is listened at.
    """
    config = uvicorn.Config(
        app,
        backlog=CONNECTIONS,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=round(service.limits.seconds + LAST),
    )
    server = Server(config, service, lambda: started(address_of(listener)))
    server.run(sockets=[listener])
    return server.signal_number


class Server(uvicorn.Server):
    """uvicorn's server, which ends by returning instead of by the signal that asked it to stop."""

    def __init__(self, config: uvicorn.Config, service: Service, begun: Callable[[], None]) -> None:
        super().__init__(config)
        self.service = service
        self.begun = begun
        self.signal_number = 0

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.begun()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        before = {number: signal.signal(number, self.stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def stop(self, number: int, frame: FrameType | None) -> None:
        """Stop in an orderly way; a second Ctrl-C, at once."""
        self.force_exit = self.should_exit and number == signal.SIGINT
        self.should_exit = True
        self.signal_number = number
        self.service.stopping = True
