"""Settings of every test: no network, a folder of decoded images of its own, and processes that start at once."""

from __future__ import annotations

import multiprocessing
import os
import runpy
import socket
from collections.abc import Callable, Iterator
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"  # before huggingface_hub is imported, which reads it then

LAUNCHED = Path(__file__).with_name("launched.py")
IMPORTS = ["vitrail.cli.main", "vitrail.recipes.training.train", "vitrail.recipes.pretraining.pretrain",
           "vitrail.train.sharding", "torch.distributed.fsdp", "vitrail.metrics.draw", "matplotlib.figure",
           "matplotlib.backends.backend_agg", "sklearn.datasets", "rich.progress"]  # fmt: skip
PATIENCE = 180  # seconds; far more than is needed, even beside other tests


class Launched:
    """`vitrail` in a process of its own."""

    def __init__(self, process: ForkServerProcess, output: Path) -> None:
        self.process, self.output = process, output

    @property
    def pid(self) -> int:
        assert self.process.pid is not None
        return self.process.pid

    def running(self) -> bool:
        return self.process.is_alive()

    def kill(self) -> None:
        self.process.kill()

    def end(self) -> str:
        """Wait for the end; what it said."""
        self.process.join(PATIENCE)
        assert not self.running(), self.output.read_text()
        return self.output.read_text()

    @property
    def status(self) -> int | None:
        return self.process.exitcode


Launch = Callable[..., Launched]


@pytest.fixture(scope="session")
def launch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launch]:
    """``launch("train", folder, …, RANK=0)`` starts a command, as a person types it, with these variables besides.

    The imports are done once, in a process of which all these are forked; to start Python anew takes seconds.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        pytest.skip("this system does not fork")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(IMPORTS)
    folder, launched = tmp_path_factory.mktemp("launched"), []

    def start(*words: object, **environment: object) -> Launched:
        output = folder / str(len(launched))
        told = {"words": list(map(str, words)), "output": str(output),
                "environment": {name: str(value) for name, value in environment.items()}}  # fmt: skip
        process = context.Process(target=runpy.run_path, args=(str(LAUNCHED), {"told": told}))
        process.start()
        launched.append(Launched(process, output))
        return launched[-1]

    yield start
    for each in launched:
        each.kill()


@pytest.fixture(scope="session")
def complete(launch: Launch) -> Callable[..., str]:
    """``complete("train", …, processes=2)`` runs a command to its end, which must be a good one; what it said."""

    def run(*words: object, processes: int = 1) -> str:
        together = [{}] if processes == 1 else list(as_torchrun_does(processes))
        started = [launch(*words, **environment) for environment in together]
        said = "\n".join(each.end() for each in started)
        assert [each.status for each in started] == [0] * processes, said
        return said

    return run


def as_torchrun_does(processes: int) -> Iterator[dict[str, object]]:
    """The variables that tell each of several processes on this machine of the others."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for rank in range(processes):
        sizes = {"WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes, "RANK": rank, "LOCAL_RANK": rank}
        yield {"TORCHELASTIC_RUN_ID": "tests", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, **sizes}


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A folder of the test's own for decoded images, and nothing open from the test before."""
    from vitrail.data import cache

    monkeypatch.setenv("VITRAIL_CACHE", str(tmp_path / "cache"))
    yield
    cache._open.clear()
