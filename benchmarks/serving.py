"""`vitrail serve` under load on this machine: images a second and latency, with and without batches; and killed.

Clients on loopback send one image a request, over connections that stay open, as fast as they are answered. Each
answer is compared with what `vitrail predict --json` says of that image, to the last digit. The model has random
weights and is made on the spot.

    python benchmarks/serving.py                     2,000 requests from 32 clients, batches of 32 and of 1
    python benchmarks/serving.py --kills 100         kill -9 and restart under load: what is lost, and what is wrong
    python benchmarks/serving.py --model vit-nano --requests 200 --clients 8 --out serving.md
"""

from __future__ import annotations

import argparse
import http.client
import io
import json
import platform
import random
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from vitrail import models
from vitrail.choices import Precision
from vitrail.data.preprocess import Preprocess
from vitrail.recipes.predicting.predict import predict
from vitrail.recipes.predicting.settings import Predict
from vitrail.tasks import Classification
from vitrail.weights.save import save_description, save_weights

ROOT = Path(__file__).parent.parent
CLASSES, PHOTOS = 100, 64
PATIENCE = 300.0  # seconds to start, or to answer


@dataclass(frozen=True)
class Question:
    """A request that is ready to be sent, and the right answer."""

    body: bytes
    kind: str
    expected: list[dict[str, Any]]


@dataclass(frozen=True)
class Load:
    """What a server did under load.

    Attributes:
        images_per_second: answered.
        p50, p99: milliseconds from a request to its answer.
        wrong: answers that were not those of `vitrail predict`; failed: those that were none.
        mean_batch: images that the model computed at once.
    """

    batch_size: int
    requests: int
    clients: int
    images_per_second: float
    p50: float
    p99: float
    wrong: int
    failed: int
    mean_batch: float


@dataclass(frozen=True)
class Kills:
    """What became of requests to a server that was killed again and again.

    Attributes:
        answered: requests with an answer; wrong: of these, the ones that `vitrail predict` answers differently.
        lost: requests in flight at a kill, or sent to a server that was dying; none of them was answered.
    """

    kills: int
    clients: int
    answered: int
    wrong: int
    lost: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="vit-s16")
    parser.add_argument("--precision", default="auto", choices=["auto", "float32", "bfloat16"])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[32, 1])
    parser.add_argument("--kills", type=int, default=0, help="kill so often instead of measuring")
    parser.add_argument("--out", type=Path, default=None, help="the table; beside it the same as JSON")
    settings = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run, questions = prepare(Path(folder), settings.model, settings.precision, settings.device)
        flags = ["--precision", settings.precision, "--device", settings.device]
        if settings.kills:
            results: list[Any] = [killed(run, questions, settings.kills, settings.clients, flags)]
        else:
            results = [
                loaded(run, questions, size, settings.requests, settings.clients, flags)
                for size in settings.batch_sizes
            ]
    name = "serving_killed" if settings.kills else "serving"
    write(settings.out or ROOT / "benchmarks" / "results" / f"{name}.md", settings, results)


def prepare(folder: Path, model: str, precision: Precision, device: str) -> tuple[Path, list[Question]]:
    """A run's folder with random weights, and questions with their answers."""
    torch.manual_seed(0)
    backbone = models.create(model)
    preprocess = Preprocess(tuple(backbone.config.image_size), channels=backbone.config.channels,
                            mean=(0.5,) * backbone.config.channels, std=(0.5,) * backbone.config.channels)  # fmt: skip
    task = Classification(model, backbone, [f"class {number}" for number in range(CLASSES)], preprocess)
    for parameter in task.head.parameters():
        torch.nn.init.normal_(parameter, std=0.1)  # which papers begin with zeros, so that all answers were the same
    save_description(task, folder / "run")
    save_weights(task.state_dict(), folder / "run")
    files = [folder / f"{number}.jpg" for number in range(PHOTOS)]
    for number, file in enumerate(files):
        file.write_bytes(a_photo(number))
    words = tuple(str(file) for file in files)
    said = predict(Predict(str(folder / "run"), words, workers=0, device=device, precision=precision, json=True))
    return folder / "run", [question(file, answer["predictions"]) for file, answer in zip(files, said, strict=True)]


def a_photo(seed: int) -> bytes:
    """A JPEG of 400 x 300 pixels, smooth and a bit noisy, as photographs are."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8))
    pixels = np.asarray(coarse.resize((400, 300), Image.Resampling.BICUBIC)) + rng.normal(0, 4, (300, 400, 3))
    buffer = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def question(file: Path, expected: list[dict[str, Any]]) -> Question:
    head = f'--edge\r\nContent-Disposition: form-data; name="image"; filename="{file.name}"\r\n\r\n'
    return Question(
        head.encode() + file.read_bytes() + b"\r\n--edge--\r\n", "multipart/form-data; boundary=edge", expected
    )


@contextmanager
def server(run: Path, port: int, flags: Sequence[str]) -> Iterator[subprocess.Popen[str]]:
    """A server that is ready, and that is killed in the end."""
    command = [sys.executable, "-m", "vitrail", "serve", str(run), "--port", str(port), "--quiet", *flags]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        line = process.stderr.readline()
        if "http://" not in line:
            raise SystemExit(f"the server did not start: {line}{process.stderr.read()}")
        yield process
    finally:
        process.kill()
        process.communicate()


def loaded(
    run: Path, questions: list[Question], batch_size: int, requests: int, clients: int, flags: Sequence[str]
) -> Load:
    """Ask a server with this batch size ``requests`` times, by so many clients at once."""
    port = free_port()
    with server(run, port, [*flags, "--batch-size", str(batch_size), "--queue", str(4 * clients + 64)]):
        ask_all(port, questions, 2 * clients, clients)  # which warms up the connections' code, and is not measured
        before = batches(port)
        began = time.perf_counter()
        outcomes, seconds = ask_all(port, questions, requests, clients)
        wall = time.perf_counter() - began
        computed, images = (after - first for after, first in zip(batches(port), before, strict=True))
    p50, p99 = np.percentile(seconds, [50, 99]) * 1000
    load = Load(batch_size, requests, clients, round(outcomes["right"] / wall, 1), round(p50, 1), round(p99, 1),
                outcomes["wrong"], outcomes["failed"], round(images / max(computed, 1), 1))  # fmt: skip
    print(json.dumps(asdict(load)), flush=True)
    return load


def ask_all(port: int, questions: list[Question], requests: int, clients: int) -> tuple[Counter[str], list[float]]:
    """What became of the requests, and the seconds that each took."""
    outcomes: Counter[str] = Counter()
    seconds: list[float] = []
    numbers = iter(range(requests))
    lock = threading.Lock()

    def client() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        while True:
            with lock:
                if (number := next(numbers, None)) is None:
                    break
            began = time.perf_counter()
            outcome = ask(connection, questions[number % len(questions)])
            with lock:
                outcomes[outcome] += 1
                seconds.append(time.perf_counter() - began)
        connection.close()

    at_once([client] * clients)
    return outcomes, seconds


def ask(connection: http.client.HTTPConnection, asked: Question) -> str:
    """Whether the answer is right, wrong or none. Raises OSError or HTTPException if the connection breaks."""
    connection.request("POST", "/predict", asked.body, {"Content-Type": asked.kind})
    response = connection.getresponse()
    answer = response.read()
    if response.status != 200:
        return "failed"
    return "right" if json.loads(answer)["predictions"][0]["predictions"] == asked.expected else "wrong"


def killed(run: Path, questions: list[Question], kills: int, clients: int, flags: Sequence[str]) -> Kills:
    """Clients ask without end, and reconnect, while the server is killed and started anew."""
    port, over, outcomes, lock = free_port(), threading.Event(), Counter[str](), threading.Lock()

    def client() -> None:
        rng = random.Random(threading.get_ident())
        while not over.is_set():
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
            try:
                connection.connect()
            except OSError:  # nobody is there: nothing was asked, so nothing is lost
                time.sleep(0.05)
                continue
            while not over.is_set():
                try:
                    outcome = ask(connection, rng.choice(questions))
                except (OSError, http.client.HTTPException):
                    outcome = "lost"
                with lock:
                    outcomes[outcome] += 1
                if outcome == "lost":
                    break
            connection.close()

    def answered(more: int) -> None:
        goal = outcomes["right"] + more
        until(lambda: outcomes["right"] >= goal)

    def killer() -> None:
        moments = random.Random(0)
        for number in range(kills):
            with server(run, port, flags):
                answered(moments.randint(1, 2 * clients))
            print(f"killed {number + 1} times: {dict(outcomes)}", flush=True)
        with server(run, port, flags):
            answered(clients)
            over.set()
            time.sleep(1)  # for the answers that are under way

    at_once([client] * clients + [killer])
    return Kills(kills, clients, outcomes["right"] + outcomes["wrong"], outcomes["wrong"], outcomes["lost"])


def at_once(works: Sequence[Callable[[], None]]) -> None:
    threads = [threading.Thread(target=work) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit("the server answers no more")
        time.sleep(0.002)


def batches(port: int) -> tuple[float, float]:
    """How often the model computed, and how many images in all."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    found = [re.search(rf"^vitrail_batch_images_{what} (\S+)", text, re.MULTILINE) for what in ("count", "sum")]
    return float(found[0][1]), float(found[1][1])  # type: ignore[index]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def write(out: Path, settings: argparse.Namespace, results: Sequence[Any]) -> None:
    """The table, and the same as JSON."""
    rows = [asdict(result) for result in results]
    lines = [" | ".join(name.replace("_", " ") for name in rows[0]), " | ".join("---" for _ in rows[0])]
    lines += [" | ".join(f"{value:,}" for value in row.values()) for row in rows]
    machine = (
        f"{torch.get_num_threads()} threads, PyTorch {torch.__version__}, {platform.system()} {platform.machine()}"
    )
    title = f"{settings.model}, {settings.precision} precision, device {settings.device}; {machine}."
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(title + "\n\n" + "\n".join(f"| {line} |" for line in lines) + "\n")
    record = {"model": settings.model, "precision": settings.precision, "machine": machine, "results": rows}
    out.with_suffix(".json").write_text(json.dumps(record, indent=2) + "\n")
    print(out.read_text())


if __name__ == "__main__":
    main()
