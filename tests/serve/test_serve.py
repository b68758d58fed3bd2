"""The command in a process of its own: how it starts, what it says, and how it ends."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from vitrail.errors import SettingError
from vitrail.recipes.predicting.predict import predict
from vitrail.recipes.predicting.settings import Predict
from vitrail.serve.serve import serve
from vitrail.serve.server import address_of, bound
from vitrail.serve.settings import Serve

PATIENCE = 120  # seconds; far more than is needed, even beside other tests
on_posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")


class Process(NamedTuple):
    """A running service: its process, where it is, and the file that has what it says."""

    process: subprocess.Popen[str]
    address: str
    said: Path

    def stop(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        return self.process.wait(PATIENCE)


@pytest.fixture
def launch(run, tmp_path):
    """Starts ``vitrail serve`` and waits for its address: ``launch(*flags, **environment)``."""
    processes = []

    def start(*flags, **environment):
        said = tmp_path / f"said-{len(processes)}.txt"
        command = [sys.executable, "-m", "vitrail", "serve", run, "--port", 0, "--device", "cpu", *flags]
        with said.open("w") as errors:
            process = subprocess.Popen(
                [str(word) for word in command],
                env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        processes.append(process)
        deadline = time.monotonic() + PATIENCE
        while not (found := re.search(r"http://[\w.\[\]:]+:\d+", said.read_text())):
            assert process.poll() is None, said.read_text()
            assert time.monotonic() < deadline, "it did not start"
            time.sleep(0.02)
        return Process(process, found[0], said)

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def test_it_answers_as_the_command_does_and_logs_and_ends(launch, run, photo, tmp_path):
    service = launch("--precision", "float32")
    assert "vit-nano with 6 classes answers at" in service.said.read_text()
    files = [tmp_path / f"{number}.png" for number in range(3)]
    for number, file in enumerate(files):
        file.write_bytes(photo(number))
    settings = Predict(str(run), tuple(map(str, files)), device="cpu", precision="float32", workers=0, json=True)
    expected = [{**answer, "image": Path(answer["image"]).name} for answer in predict(settings)]
    with httpx.Client(base_url=service.address) as client:
        response = client.post("/predict", files=[("image", (file.name, file.read_bytes())) for file in files])
        assert response.json()["predictions"] == expected
        assert "server" not in response.headers
        assert client.get("/ready").status_code == 200
    assert service.stop() == 0
    lines = service.said.read_text().splitlines()
    assert re.search(r"POST /predict 200 [\d.]+ ms, request " + response.headers["x-request-id"], lines[1])
    assert len(lines) == 3


@on_posix
def test_a_request_in_flight_is_answered_before_it_ends(launch, photo):
    service = launch("--batch-delay", 1500, "--quiet", "--json")  # for so long the image waits for others
    answers = []

    def ask():
        answers.append(httpx.post(f"{service.address}/predict", files={"image": ("a.png", photo())}, timeout=PATIENCE))

    asking = threading.Thread(target=ask)
    asking.start()
    with httpx.Client(base_url=service.address) as client:
        while "vitrail_images_waiting 1.0" not in client.get("/metrics").text:
            assert asking.is_alive(), "it was answered too soon"
    service.process.send_signal(signal.SIGTERM)
    asking.join(PATIENCE)
    out, _ = service.process.communicate(timeout=PATIENCE)
    counted = json.loads(out)
    assert service.process.returncode == 0
    assert counted["by_status"] == {"200": counted["requests"]}
    assert counted["requests"] >= 2
    assert [answer.status_code for answer in answers] == [200]
    assert len(answers[0].json()["predictions"][0]["predictions"]) == 5
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{service.address}/health")
    assert len(service.said.read_text().splitlines()) == 1  # quiet


@on_posix
def test_ctrl_c_ends_it_with_130_and_json_is_logged_as_json(launch):
    service = launch("--json", VITRAIL_TOKEN="secret")
    assert httpx.get(f"{service.address}/model").status_code == 401
    assert httpx.get(f"{service.address}/model", headers={"Authorization": "Bearer secret"}).status_code == 200
    service.process.send_signal(signal.SIGINT)
    out, _ = service.process.communicate(timeout=PATIENCE)
    assert (service.process.returncode, out) == (130, "")
    address, first, second, last = service.said.read_text().splitlines()
    assert json.loads(address) == {"address": service.address}
    assert [json.loads(line)["status"] for line in (first, second)] == [401, 200]
    assert json.loads(first).keys() == {"time", "method", "path", "status", "milliseconds", "request"}
    assert last == "vitrail: interrupted."
    assert "secret" not in service.said.read_text()


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"queue": 10, "images_per_request": 11}, "--images-per-request is larger than --queue"),
        ({"port": 70_000}, "--port must be from 0 to 65535"),
        ({"timeout": 0}, "--timeout must be a number above 0"),
        ({"batch_delay": -1}, "--batch-delay must be a number from 0 upwards"),
        ({"pixels": 0}, "--pixels must be at least 1"),
        ({"batch_size": 0}, "--batch-size must be at least 1"),
        ({"upload_megabytes": 0}, "--upload-megabytes must be a number above 0"),
        ({"examples": Path("nowhere")}, "--examples nowhere is no folder"),
        ({"host": "no.such.host.invalid"}, "there is no host 'no.such.host.invalid'"),
        ({"device": "cuda:99", "port": 0}, "device 'cuda:99' is not available"),
    ],
)
def test_settings_that_make_no_sense(run, settings, sentence):
    with pytest.raises(SettingError, match=re.escape(sentence)):
        serve(Serve(str(run), **settings))


def test_a_port_that_is_taken(run):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(
            SettingError, match=rf"127\.0\.0\.1:{port} cannot be had: .*; give another --host, or another --port"
        ):
            serve(Serve(str(run), port=port))


@pytest.mark.parametrize(("host", "shown"), [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("::1", "[::1]")])
def test_the_address_that_is_told_can_be_opened(host, shown):
    try:
        with bound(host, 0) as listener:
            assert address_of(listener) == f"http://{shown}:{listener.getsockname()[1]}"
    except SettingError:
        pytest.skip(f"this machine has no address {host}")


def test_without_the_libraries_one_is_told_which_extra_to_install(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(SettingError, match=re.escape("the service needs uvicorn: pip install 'vitrail[serve]'.")):
        serve(Serve(str(run)))
