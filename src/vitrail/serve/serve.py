"""Serve: a model as an HTTP service with a web page, until it is asked to stop."""

from __future__ import annotations

import importlib
import json
import os
import signal
import webbrowser
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from socket import socket
from typing import TYPE_CHECKING, Any

from vitrail.console import say
from vitrail.errors import SettingError
from vitrail.recipes.opened import open_classifier
from vitrail.recipes.settings import check_numbers
from vitrail.serve.settings import Serve
from vitrail.train.precision import choose_device, choose_precision

if TYPE_CHECKING:
    from vitrail.serve.door import Line
    from vitrail.serve.service import Service


LIBRARIES = ("fastapi", "uvicorn", "python_multipart", "prometheus_client")  # of the extra `serve`


def serve(settings: Serve) -> dict[str, Any]:
    """Answer until a signal asks to stop; then finish what is in flight. Returns the number of answers by status.

    Raises :class:`SettingError` for settings that make no sense, an address that cannot be had, or if the libraries are
    missing; and KeyboardInterrupt in the end if it was Ctrl-C that asked.
    """
    check_numbers(settings)
    if settings.images_per_request > settings.queue:
        raise SettingError("--images-per-request is larger than --queue, so that such a request would never be taken.")
    check_libraries()
    from vitrail.serve.describe import examples_in
    from vitrail.serve.server import bound

    examples = examples_in(settings.examples)
    with bound(settings.host, settings.port) as listener:  # before the model is read, which takes longer
        service = open_service(settings)
        try:
            return run(settings, service, listener, examples)
        finally:
            service.close()


def check_libraries() -> None:
    """Raises :class:`SettingError` where what the service needs is not installed."""
    for library in LIBRARIES:
        try:
            importlib.import_module(library)
        except ImportError as error:
            raise SettingError(f"the service needs {library}: pip install 'vitrail[serve]'.") from error


def open_service(settings: Serve) -> Service:
    """The service, warm. Raises what `open_classifier` does."""
    from vitrail.serve.model import Model
    from vitrail.serve.service import Limits, Service

    device = choose_device(settings.device)
    task = open_classifier(settings.run, settings.stated, settings.merge).to(device).eval()
    limits = Limits(
        settings.upload_megabytes, settings.pixels, settings.images_per_request, settings.queue, settings.timeout
    )
    model = Model(task, device, choose_precision(device, settings.precision))
    service = Service(model, settings.batch_size, settings.batch_delay / 1000, limits)
    try:
        service.warm.result()
    except BaseException:
        service.close()
        raise
    if not model.alike:
        say(
            "on this machine the last digits of an answer depend on what is computed with it; --batch-size 1 avoids it."
        )
    return service


def run(settings: Serve, service: Service, listener: socket, examples: Mapping[str, Path]) -> dict[str, Any]:
    """Answer requests that come to a socket."""
    from vitrail.serve import server
    from vitrail.serve.app import build_app
    from vitrail.serve.describe import description
    from vitrail.serve.door import Door

    statuses: Counter[int] = Counter()

    def note(line: Line) -> None:
        statuses[line.status] += 1
        if not settings.quiet:
            say(line.as_json() if settings.json else str(line))

    described = description(settings.run, service, examples)
    token = settings.token or os.environ.get("VITRAIL_TOKEN") or None
    app = build_app(service, described, examples)
    door = Door(app, service.measures, token, settings.upload_megabytes, note)

    def started(address: str) -> None:
        what = f"{service.model.task.model} with {len(service.model.task.classes)} classes"
        say(json.dumps({"address": address}) if settings.json else f"{what} answers at {address} (Ctrl-C stops it)")
        if settings.open:
            webbrowser.open(address)

    stopped_by = server.run(door, listener, service, started)
    if stopped_by == signal.SIGINT:
        raise KeyboardInterrupt
    return {"requests": statuses.total(), "by_status": {str(key): statuses[key] for key in sorted(statuses)}}
