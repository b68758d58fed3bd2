"""What every request passes: its number, the token, the log, the counters; and how the service tells of itself."""

from __future__ import annotations

import json
import re

import pytest
import torch

from vitrail.serve.door import Door, Line
from vitrail.serve.model import Model

TOKEN = "open sésame"


@pytest.fixture(scope="module")
def guarded(client):
    """The same service behind a token."""
    door = Door(client.door.app, client.service.measures, TOKEN, client.door.megabytes, client.lines.append)
    return type(client)(client.service, door, client.lines)


class TestToken:
    @pytest.mark.parametrize(
        ("path", "status"),
        [
            *((path, 200) for path in ("/health", "/ready", "/", "/page/page.js", "/docs", "/openapi.json")),
            *((path, 401) for path in ("/model", "/metrics", "/examples/a.png", "/nothing", "/predict", "/pages/x")),
        ],
    )
    def test_what_is_open_and_what_is_not(self, guarded, path, status):
        assert guarded.get(path).status_code == status

    def test_without_it_nothing_is_read(self, guarded, photo):
        response = guarded.post("/predict", photo())
        assert response.status_code == 401
        assert response.headers["www-authenticate"] == "Bearer"
        assert response.json() == {"error": "this service wants its token, in the header Authorization: Bearer TOKEN."}

    @pytest.mark.parametrize(
        ("shown", "status"),
        [
            (f"Bearer {TOKEN}", 200),
            (f"bearer  {TOKEN}", 200),
            (f"Bearer {TOKEN}x", 401),
            (f"Bearer {TOKEN[:-1]}", 401),
            (f"Basic {TOKEN}", 401),
            (TOKEN, 401),
            ("Bearer", 401),
            ("", 401),
            ("Bearer \xff\xfe", 401),
        ],
    )
    def test_only_the_token_itself_lets_in(self, guarded, photo, shown, status):
        headers = {b"authorization": shown.encode()}
        assert guarded.post("/predict", photo(), headers=headers).status_code == status


class TestNumbersAndLog:
    def test_every_request_is_a_line(self, client, photo):
        del client.lines[:]
        answers = [client.get("/health"), client.post("/predict", b"rubbish"), client.get("/nothing?secret=1")]
        assert [(line.method, line.path, line.status) for line in client.lines] == [
            ("GET", "/health", 200),
            ("POST", "/predict", 400),
            ("GET", "/nothing", 404),
        ]
        assert [line.request for line in client.lines] == [answer.headers["x-request-id"] for answer in answers]
        assert len({line.request for line in client.lines}) == 3

    @pytest.mark.parametrize(
        ("given", "kept"), [("abc-1.2_3", True), ("a" * 64, True), ("a" * 65, False), ("a b", False), ("é", False)]
    )
    def test_a_proxys_number_is_kept_if_it_is_harmless(self, client, given, kept):
        answer = client.get("/health", headers={b"x-request-id": given.encode()})
        assert (answer.headers["x-request-id"] == given) == kept

    def test_a_line_is_harmless_to_a_terminal(self):
        line = Line("GET", "/\x1b[31m\n" + "é" * 500, 404, 1.5, "abc")
        written = str(line)
        assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d GET /\?\[31m\?+ 404 1.5 ms, request abc", written)
        assert len(written) < 300
        assert json.loads(line.as_json()) | {"time": 0} == {**line._asdict(), "time": 0}

    def test_a_failure_is_told_to_the_log_and_not_to_the_client(self, start, tiny, photo, capsys):
        class Broken(Model):
            def predict(self, asked):
                raise RuntimeError("out of memory at /secret/path")

        client = start(Broken(tiny(), torch.device("cpu"), torch.float32))
        response = client.post("/predict", photo())
        name = response.headers["x-request-id"]
        assert (response.status_code, client.lines[-1].status) == (500, 500)
        assert response.json() == {
            "error": "the service failed; its log says why, beside the request's number in X-Request-ID."
        }
        said = capsys.readouterr().err
        assert f"request {name} failed" in said
        assert "out of memory at /secret/path" in said
        assert client.get("/health").status_code == 200


class TestState:
    def test_alive_ready_and_stopping(self, start):
        client = start()
        assert client.get("/health").json() == {"status": "alive"}
        assert client.get("/ready").json() == {"status": "ready"}
        client.service.stopping = True
        response = client.get("/ready")
        assert (response.status_code, response.json()) == (503, {"error": "the service is stopping."})
        assert client.get("/health").status_code == 200

    def test_what_is_not_there(self, client):
        for method, path, status in (("GET", "/nothing", 404), ("GET", "/predict", 405), ("PUT", "/model", 405)):
            response = client.request(method, path)
            assert (response.status_code, list(response.json())) == (status, ["error"])
        assert client.get("/predict").headers["allow"] == "POST"

    def test_no_header_tells_of_versions_and_sniffing_is_forbidden(self, client):
        for path in ("/health", "/nothing", "/", "/docs"):
            headers = client.get(path).headers
            assert headers["x-content-type-options"] == "nosniff"
            assert "server" not in headers

    def test_counters(self, start, photo):
        client = start()
        client.post("/predict", photo(0), photo(1), b"rubbish")
        client.post("/predict", b"rubbish")
        client.get("/strange/place")
        client.request("BREW", "/health")
        response = client.get("/metrics")
        assert response.headers["content-type"].startswith("text/plain; version=")
        counted = dict(line.rsplit(" ", 1) for line in response.text.splitlines() if not line.startswith("#"))
        assert counted['vitrail_requests_total{method="POST",route="/predict",status="200"}'] == "1.0"
        assert counted['vitrail_requests_total{method="POST",route="/predict",status="400"}'] == "1.0"
        assert counted['vitrail_requests_total{method="GET",route="other",status="404"}'] == "1.0"
        assert counted['vitrail_requests_total{method="other",route="/health",status="405"}'] == "1.0"
        assert counted['vitrail_request_seconds_count{route="/predict"}'] == "2.0"
        assert counted["vitrail_unreadable_images_total"] == "2.0"
        assert counted["vitrail_images_inside"] == counted["vitrail_images_waiting"] == "0.0"
        assert float(counted["vitrail_batch_images_sum"]) == 3  # two images, and the warming up
