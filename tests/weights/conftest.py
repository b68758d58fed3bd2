"""A hub on this machine in the place of the Hugging Face Hub."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import constants


@dataclass
class Repository:
    """Its files, the commit that "main" is, and how the hub answers for it.

    Attributes:
        refusal: status and error code for everything in it, such as ``(403, "GatedRepo")``.
        breaks: how many bytes of a file arrive before the connection breaks, once a number.
        stated: hashes that are not those of the files.
    """

    files: dict[str, bytes]
    commit: str = "c0" * 20
    refusal: tuple[int, str] | None = None
    breaks: dict[str, list[int]] = field(default_factory=dict)
    stated: dict[str, str] = field(default_factory=dict)


class FakeHub:
    """Answers ``/ORG/NAME/resolve/REVISION/FILE``; ``requests`` notes method, file and the range that was asked for."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.requests: list[tuple[str, str, str | None]] = []
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"hub": self}))
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    def add(self, name: str, files: dict[str, bytes]) -> Repository:
        self.repositories[name] = Repository(files)
        return self.repositories[name]

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


class Handler(BaseHTTPRequestHandler):
    hub: FakeHub

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def answer(self) -> None:
        name, _, rest = self.path.lstrip("/").partition("/resolve/")
        revision, _, file = rest.partition("/")
        self.hub.requests.append((self.command, file, self.headers.get("Range")))
        repository = self.hub.repositories.get(name)
        if repository is None:
            return self.refuse(401, "RepoNotFound")
        if repository.refusal is not None:
            return self.refuse(*repository.refusal)
        if revision not in ("main", "v1", repository.commit):
            return self.refuse(404, "RevisionNotFound")
        if file not in repository.files:
            return self.refuse(404, "EntryNotFound", repository.commit)
        return self.send(repository, file)

    def refuse(self, status: int, code: str, commit: str | None = None) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        if commit is not None:
            self.send_header("X-Repo-Commit", commit)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def send(self, repository: Repository, file: str) -> None:
        whole = repository.files[file]
        start = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").rstrip("-"))
        self.send_response(206 if start else 200)
        self.send_header("X-Repo-Commit", repository.commit)
        self.send_header("ETag", f'"{hashlib.sha1(whole).hexdigest()}"')
        if not file.endswith(".json"):  # a large file, known by its hash
            self.send_header("X-Linked-Etag", f'"{repository.stated.get(file, hashlib.sha256(whole).hexdigest())}"')
            self.send_header("X-Linked-Size", str(len(whole)))
        self.send_header("Content-Range", f"bytes {start}-{len(whole) - 1}/{len(whole)}")
        self.send_header("Content-Length", str(len(whole) - start))
        self.end_headers()
        if self.command == "GET":
            breaks = repository.breaks.get(file)
            self.wfile.write(whole[start : start + breaks.pop(0)] if breaks else whole[start:])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """An empty hub, an empty cache, and no waiting between two tries."""
    hub = FakeHub()
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    huggingface_hub.close_session()
    yield hub
    huggingface_hub.close_session()
    hub.close()
